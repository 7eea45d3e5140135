//! Stands in the chain for a plugin that cannot run and must not be skipped (`failStrategy: FAIL_CLOSE`).

use async_trait::async_trait;
use http::StatusCode;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

/// Refuses every request: letting it pass without, say, its authentication would be worse.
pub(crate) struct Failed {
    /// Name of the plugin that should be here.
    pub(crate) name: Box<str>,
}

#[async_trait(?Send)]
impl Plugin for Failed {
    async fn call(
        &self,
        _exchange: &mut Exchange,
        _request: Request,
        _next: Next<'_>,
    ) -> Result<Response, Error> {
        let message = format!("plugin {} is not available", self.name);
        Err(Error::gateway(
            StatusCode::INTERNAL_SERVER_ERROR,
            "plugin_unavailable",
            message,
        ))
    }
}
