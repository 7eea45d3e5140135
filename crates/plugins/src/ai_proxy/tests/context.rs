//! The context file: fetched once, put in front of every vendor's conversation, and what happens when it cannot be had.

use std::time::Duration;

use serde_json::json;
use tollgate_plugin::Caller;

use super::*;

type Answers = Rc<RefCell<VecDeque<(u16, &'static str)>>>;

/// A vendor, and another service that answers call-outs in order.
struct WithFiles {
    vendor: Vendor,
    answers: Answers,
    asked: Rc<RefCell<Vec<String>>>,
}

impl WithFiles {
    fn answering(answers: &[(u16, &'static str)]) -> Self {
        Self {
            vendor: Vendor::default(),
            answers: Rc::new(RefCell::new(answers.iter().copied().collect())),
            asked: Rc::default(),
        }
    }
}

struct Files(Answers, Rc<RefCell<Vec<String>>>);

#[async_trait(?Send)]
impl Caller for Files {
    async fn call(&self, cluster: &str, request: Request, limit: Duration) -> Result<Response, Error> {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let line = format!(
            "{cluster} {host} {} {}",
            request.uri().path_and_query().unwrap(),
            limit.as_millis()
        );
        self.1.borrow_mut().push(line);
        let Some((status, text)) = self.0.borrow_mut().pop_front() else {
            return Err(tollgate_plugin::unknown_cluster(cluster));
        };
        Ok(http::Response::builder()
            .status(status)
            .body(Body::bytes(text))
            .unwrap())
    }
}

#[async_trait(?Send)]
impl Host for WithFiles {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        self.vendor.forward(exchange, request).await
    }

    fn reroute(&self, _: &mut Exchange, _: &Request) -> &[Link] {
        &[]
    }

    fn caller(&self, _: &Exchange) -> Rc<dyn Caller> {
        Rc::new(Files(self.answers.clone(), self.asked.clone()))
    }
}

fn provider(vendor: &str) -> Value {
    json!({"type": vendor, "apiTokens": ["t"], "timeout": 1500, "qwenEnableCompatible": false,
        "context": {"fileUrl": "http://files.example/a.txt?v=2", "serviceName": "files.dns", "servicePort": 80}})
}

fn question() -> Request {
    chat(
        json!({"model": "m", "max_tokens": 5, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}),
    )
}

async fn ask(host: &WithFiles, plugin: &Arc<dyn Plugin>, request: Request) -> Response {
    run_at(&mut exchange(), plugin, host, request).await.unwrap()
}

#[tokio::test]
async fn it_is_fetched_once_and_every_vendor_gets_it() {
    let host = WithFiles::answering(&[(200, "from the file")]);
    let openai = plugin(provider("openai"));
    ask(&host, &openai, question()).await;
    ask(&host, &openai, question()).await;
    ask(
        &host,
        &openai,
        post("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
    )
    .await;
    assert_eq!(
        *host.asked.borrow(),
        ["outbound|80||files.dns files.example /a.txt?v=2 1500"]
    );
    let seen = host.vendor.seen.take();
    let expected = json!([{"role": "system", "content": "s"}, {"role": "system", "content": "from the file"},
        {"role": "user", "content": "u"}]);
    assert_eq!(seen[0].json()["messages"], expected);
    assert_eq!(seen[1].json()["messages"], expected);
    assert_eq!(seen[2].json(), json!({"model": "m", "input": "x"}));
    for vendor in ["claude", "qwen"] {
        let host = WithFiles::answering(&[(200, "from the file")]);
        ask(&host, &plugin(provider(vendor)), question()).await;
        let sent = host.vendor.seen.borrow()[0].json().to_string();
        assert!(
            sent.contains("from the file") && sent.contains("\"u\""),
            "{vendor}: {sent}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_tried_again() {
    let host = WithFiles::answering(&[(404, "no"), (200, "\u{fffd}"), (200, "x")]);
    let openai = plugin(provider("openai"));
    let mut refused = exchange();
    let response = run_at(&mut refused, &openai, &host, question()).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(*refused.record.details.borrow(), "ai-proxy.load_ctx_failed");
    assert_eq!(
        text_of(response).await,
        "failed to load context file: failed to load context file, status: 404"
    );
    assert!(host.vendor.seen.borrow().is_empty(), "the vendor heard of it");
    assert_eq!(ask(&host, &openai, question()).await.status(), 200);
    assert_eq!(host.vendor.seen.borrow().len(), 1);

    let nowhere = WithFiles::answering(&[]);
    let response = ask(&nowhere, &plugin(provider("openai")), question()).await;
    let told = text_of(response).await;
    assert!(told.contains("outbound|80||files.dns"), "{told}");
}

#[tokio::test]
async fn a_conversation_that_is_none_is_refused() {
    let host = WithFiles::answering(&[(200, "x")]);
    let response = ask(
        &host,
        &plugin(provider("openai")),
        chat(json!({"model": "m", "messages": 1})),
    )
    .await;
    assert_eq!(response.status(), 400);
    assert!(host.vendor.seen.borrow().is_empty());
}
