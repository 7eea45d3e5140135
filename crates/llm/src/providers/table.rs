//! The vendors, one row each (ai-proxy spec §2).
//!
//! A vendor that speaks OpenAI's dialect is complete with its row. Another wire format takes the row and one file
//! that implements [`super::wire::Wire`]; until that file exists the row says `built: false` and a configuration that
//! names it is refused when it is compiled.

use crate::Api;
use crate::api::Api::{
    AnthropicComplete, AnthropicMessages, Chat, CohereRerank, Completions, Embeddings, ImageGeneration,
    Models, QwenAsyncAigc, QwenConversations, QwenRerank, QwenTasks, Responses,
};

use super::row::{Auth, BodyRule, Capabilities, PathRule, PathSubstrings, Row, Unsupported};
use super::{azure, edits, set_up};

/// OpenAI's own path of every API it has.
const OPENAI_APIS: Capabilities = &[
    (Chat, "/v1/chat/completions"),
    (Completions, "/v1/completions"),
    (Embeddings, "/v1/embeddings"),
    (Api::AudioSpeech, "/v1/audio/speech"),
    (Api::AudioTranscription, "/v1/audio/transcriptions"),
    (Api::AudioTranslation, "/v1/audio/translations"),
    (Api::Realtime, "/v1/realtime"),
    (ImageGeneration, "/v1/images/generations"),
    (Api::ImageVariation, "/v1/images/variations"),
    (Api::ImageEdit, "/v1/images/edits"),
    (Api::Batches, "/v1/batches"),
    (Api::RetrieveBatch, "/v1/batches/{batch_id}"),
    (Api::CancelBatch, "/v1/batches/{batch_id}/cancel"),
    (Api::Files, "/v1/files"),
    (Api::RetrieveFile, "/v1/files/{file_id}"),
    (Api::RetrieveFileContent, "/v1/files/{file_id}/content"),
    (Models, "/v1/models"),
    (Api::FineTuningJobs, "/v1/fine_tuning/jobs"),
    (
        Api::RetrieveFineTuningJob,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}",
    ),
    (
        Api::FineTuningJobEvents,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
    ),
    (
        Api::FineTuningJobCheckpoints,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    ),
    (
        Api::CancelFineTuningJob,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
    ),
    (
        Api::ResumeFineTuningJob,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume",
    ),
    (
        Api::PauseFineTuningJob,
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause",
    ),
    (
        Api::CheckpointPermissions,
        "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
    ),
    (
        Api::DeleteCheckpointPermission,
        "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}",
    ),
    (Responses, "/v1/responses"),
    (Api::Videos, "/v1/videos"),
    (Api::RetrieveVideo, "/v1/videos/{video_id}"),
    (Api::RetrieveVideoContent, "/v1/videos/{video_id}/content"),
    (Api::VideoRemix, "/v1/videos/{video_id}/remix"),
];

/// APIs whose body `openai` edits; the others pass as they are.
const OPENAI_EDITED: &[Api] = &[
    Chat,
    Completions,
    Embeddings,
    ImageGeneration,
    Api::ImageEdit,
    Api::ImageVariation,
    Api::AudioSpeech,
    Api::FineTuningJobs,
    Responses,
    Api::Videos,
    Api::VideoRemix,
    Api::GeminiGenerate,
    Api::GeminiStreamGenerate,
    AnthropicMessages,
];

/// Capabilities of qwen's compatible mode.
pub(super) const QWEN_COMPATIBLE: Capabilities = &[
    (Chat, "/compatible-mode/v1/chat/completions"),
    (Embeddings, "/compatible-mode/v1/embeddings"),
    (Completions, "/compatible-mode/v1/completions"),
    (Responses, "/compatible-mode/v1/responses"),
    (Api::Files, "/compatible-mode/v1/files"),
    (Api::RetrieveFile, "/compatible-mode/v1/files/{file_id}"),
    (
        Api::RetrieveFileContent,
        "/compatible-mode/v1/files/{file_id}/content",
    ),
    (Api::Batches, "/compatible-mode/v1/batches"),
    (Api::RetrieveBatch, "/compatible-mode/v1/batches/{batch_id}"),
    (QwenAsyncAigc, "/api/v1/services/aigc/"),
    (QwenTasks, "/api/v1/tasks/"),
    (QwenRerank, "/compatible-api/v1/reranks"),
    (QwenConversations, "/compatible-mode/v1/conversations"),
    (AnthropicMessages, "/apps/anthropic/v1/messages"),
];

/// Capabilities of qwen's native mode.
pub(super) const QWEN_NATIVE: Capabilities = &[
    (Chat, "/api/v1/services/aigc/text-generation/generation"),
    (
        Embeddings,
        "/api/v1/services/embeddings/text-embedding/text-embedding",
    ),
    (QwenAsyncAigc, "/api/v1/services/aigc/"),
    (QwenTasks, "/api/v1/tasks/"),
    (QwenRerank, "/api/v1/services/rerank/text-rerank/text-rerank"),
    (AnthropicMessages, "/apps/anthropic/v1/messages"),
];

const QWEN_PATHS: PathSubstrings = &[
    ("/api/v1/services/aigc/text-generation/generation", Chat),
    ("/api/v1/services/aigc/multimodal-generation/generation", Chat),
    ("/api/v1/apps", Chat),
    ("/compatible-mode/v1/chat/completions", Chat),
    (
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        Embeddings,
    ),
    ("/compatible-mode/v1/embeddings", Embeddings),
    ("/compatible-mode/v1/responses", Responses),
    ("/api/v1/services/aigc/", QwenAsyncAigc),
    ("/api/v1/tasks/", QwenTasks),
    ("/api/v1/services/rerank/text-rerank/text-rerank", QwenRerank),
    ("/compatible-api/v1/reranks", QwenRerank),
    ("/compatible-mode/v1/conversations", QwenConversations),
];

const CHAT: Capabilities = &[(Chat, "/v1/chat/completions")];
const CHAT_AND_EMBEDDINGS: Capabilities = &[(Chat, "/v1/chat/completions"), (Embeddings, "/v1/embeddings")];
const CHAT_AND_MODELS: Capabilities = &[(Chat, "/v1/chat/completions"), (Models, "/v1/models")];
const CHAT_EMBEDDINGS_MODELS: Capabilities = &[
    (Chat, "/v1/chat/completions"),
    (Embeddings, "/v1/embeddings"),
    (Models, "/v1/models"),
];
const ORIGINAL_CHAT: PathSubstrings = &[("/v1/chat/completions", Chat)];

/// What most vendors have in common: OpenAI's dialect, a bearer token, chat, nothing else.
const TYPICAL: Row = Row {
    name: "",
    host: None,
    auth: Auth::Bearer,
    token_required: true,
    capabilities: CHAT,
    path: PathRule::Capability,
    unsupported: Unsupported::Reject,
    body: BodyRule::Model,
    edited_apis: &[],
    original_paths: &[],
    keeps_developer: false,
    set_up: |_, _| Ok(()),
    edit: None,
    chunk_edit: None,
    built: true,
};

/// A vendor whose wire format has no file yet.
const fn not_built(name: &'static str) -> Row {
    Row {
        name,
        built: false,
        ..TYPICAL
    }
}

/// The row of a `type`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// Every vendor, in alphabetical order.
pub static ROWS: &[Row] = &[
    Row {
        name: "ai360",
        host: Some("api.360.cn"),
        auth: Auth::Plain,
        capabilities: CHAT_AND_EMBEDDINGS,
        ..TYPICAL
    },
    Row {
        name: "azure",
        auth: Auth::Header("api-key"),
        token_required: false,
        capabilities: OPENAI_APIS,
        unsupported: Unsupported::Pass,
        edited_apis: OPENAI_EDITED,
        keeps_developer: true,
        set_up: azure::set_up,
        ..TYPICAL
    },
    Row {
        name: "baichuan",
        host: Some("api.baichuan-ai.com"),
        capabilities: CHAT_AND_EMBEDDINGS,
        ..TYPICAL
    },
    Row {
        name: "baidu",
        host: Some("qianfan.baidubce.com"),
        capabilities: &[(Chat, "/v2/chat/completions"), (Embeddings, "/v2/embeddings")],
        original_paths: &[("/v2/chat/completions", Chat)],
        ..TYPICAL
    },
    not_built("bedrock"),
    Row {
        name: "claude",
        host: Some("api.anthropic.com"),
        auth: Auth::Header("x-api-key"),
        capabilities: &[
            (Chat, "/v1/messages"),
            (AnthropicMessages, "/v1/messages"),
            (Completions, "/v1/complete"),
            (AnthropicComplete, "/v1/complete"),
            (Embeddings, "/v1/embeddings"),
            (Models, "/v1/models"),
        ],
        unsupported: Unsupported::Pass,
        original_paths: &[
            ("/v1/messages", Chat),
            ("/v1/complete", Completions),
            ("/v1/models", Models),
            ("/v1/embeddings", Embeddings),
        ],
        set_up: set_up::claude,
        ..TYPICAL
    },
    Row {
        name: "cloudflare",
        host: Some("api.cloudflare.com"),
        set_up: set_up::cloudflare,
        ..TYPICAL
    },
    not_built("cohere"),
    Row {
        name: "coze",
        host: Some("api.coze.cn"),
        capabilities: &[],
        path: PathRule::Keep,
        unsupported: Unsupported::Pass,
        body: BodyRule::NeverRead,
        ..TYPICAL
    },
    not_built("deepl"),
    Row {
        name: "deepseek",
        host: Some("api.deepseek.com"),
        capabilities: &[
            (Chat, "/v1/chat/completions"),
            (Models, "/v1/models"),
            (AnthropicMessages, "/anthropic/v1/messages"),
        ],
        ..TYPICAL
    },
    not_built("dify"),
    Row {
        name: "doubao",
        host: Some("ark.cn-beijing.volces.com"),
        capabilities: &[
            (Chat, "/api/v3/chat/completions"),
            (Embeddings, "/api/v3/embeddings"),
            (ImageGeneration, "/api/v3/images/generations"),
            (Responses, "/api/v3/responses"),
        ],
        original_paths: &[
            ("/api/v3/chat/completions", Chat),
            ("/api/v3/embeddings", Embeddings),
            ("/api/v3/images/generations", ImageGeneration),
            ("/api/v3/responses", Responses),
        ],
        set_up: set_up::doubao,
        edit: Some(edits::doubao),
        ..TYPICAL
    },
    Row {
        name: "fireworks",
        host: Some("api.fireworks.ai"),
        capabilities: &[
            (Chat, "/v1/chat/completions"),
            (Completions, "/v1/completions"),
            (Models, "/v1/models"),
        ],
        original_paths: &[
            ("/v1/chat/completions", Chat),
            ("/v1/completions", Completions),
            ("/v1/models", Models),
        ],
        ..TYPICAL
    },
    not_built("gemini"),
    Row {
        name: "generic",
        auth: Auth::BearerOrUntouched,
        token_required: false,
        capabilities: &[],
        path: PathRule::Keep,
        unsupported: Unsupported::Pass,
        body: BodyRule::SettingsOnly,
        set_up: set_up::generic,
        ..TYPICAL
    },
    Row {
        name: "github",
        host: Some("models.inference.ai.azure.com"),
        auth: Auth::Plain,
        capabilities: &[(Chat, "/chat/completions"), (Embeddings, "/embeddings")],
        original_paths: &[("/chat/completions", Chat), ("/embeddings", Embeddings)],
        ..TYPICAL
    },
    Row {
        name: "grok",
        host: Some("api.x.ai"),
        original_paths: ORIGINAL_CHAT,
        ..TYPICAL
    },
    Row {
        name: "groq",
        host: Some("api.groq.com"),
        capabilities: &[
            (Chat, "/openai/v1/chat/completions"),
            (Responses, "/openai/v1/responses"),
        ],
        original_paths: &[("/openai/v1/chat/completions", Chat)],
        ..TYPICAL
    },
    Row {
        name: "hunyuan",
        host: Some("api.hunyuan.cloud.tencent.com"),
        token_required: false,
        capabilities: CHAT_AND_EMBEDDINGS,
        body: BodyRule::KeepModel,
        original_paths: &[("", Chat)],
        set_up: set_up::hunyuan,
        ..TYPICAL
    },
    Row {
        name: "longcat",
        host: Some("api.longcat.chat"),
        capabilities: CHAT_EMBEDDINGS_MODELS,
        set_up: set_up::response_schema,
        edit: Some(edits::response_schema),
        ..TYPICAL
    },
    Row {
        name: "minimax",
        host: Some("api.minimax.chat"),
        capabilities: &[(Chat, "/v1/text/chatcompletion_v2")],
        path: PathRule::Capability,
        original_paths: &[
            ("/v1/text/chatcompletion_v2", Chat),
            ("/v1/text/chatcompletion_pro", Chat),
        ],
        set_up: set_up::minimax,
        ..TYPICAL
    },
    Row {
        name: "mistral",
        host: Some("api.mistral.ai"),
        capabilities: CHAT_AND_EMBEDDINGS,
        path: PathRule::Keep,
        ..TYPICAL
    },
    Row {
        name: "moonshot",
        host: Some("api.moonshot.cn"),
        capabilities: CHAT_AND_MODELS,
        chunk_edit: Some(edits::HOIST_USAGE),
        ..TYPICAL
    },
    Row {
        name: "ollama",
        auth: Auth::None,
        token_required: false,
        capabilities: CHAT_EMBEDDINGS_MODELS,
        unsupported: Unsupported::Pass,
        set_up: set_up::ollama,
        ..TYPICAL
    },
    Row {
        name: "openai",
        host: Some("api.openai.com"),
        auth: Auth::BearerOrClients,
        token_required: false,
        capabilities: OPENAI_APIS,
        unsupported: Unsupported::Pass,
        edited_apis: OPENAI_EDITED,
        set_up: set_up::openai,
        edit: Some(edits::response_schema),
        ..TYPICAL
    },
    Row {
        name: "openrouter",
        host: Some("openrouter.ai"),
        capabilities: &[
            (Chat, "/api/v1/chat/completions"),
            (Completions, "/api/v1/completions"),
        ],
        original_paths: &[
            ("/api/v1/chat/completions", Chat),
            ("/api/v1/completions", Completions),
        ],
        edit: Some(edits::openrouter),
        ..TYPICAL
    },
    Row {
        name: "qwen",
        host: Some("dashscope.aliyuncs.com"),
        capabilities: QWEN_COMPATIBLE,
        path: PathRule::CapabilityUnlessOriginal,
        body: BodyRule::ModelIfPresent,
        original_paths: QWEN_PATHS,
        set_up: set_up::qwen,
        ..TYPICAL
    },
    not_built("spark"),
    Row {
        name: "stepfun",
        host: Some("api.stepfun.com"),
        ..TYPICAL
    },
    Row {
        name: "together-ai",
        host: Some("api.together.xyz"),
        original_paths: ORIGINAL_CHAT,
        ..TYPICAL
    },
    not_built("triton"),
    not_built("vertex"),
    Row {
        name: "vllm",
        host: Some("vllm-service.cluster.local"),
        token_required: false,
        capabilities: &[
            (Chat, "/v1/chat/completions"),
            (Completions, "/v1/completions"),
            (Models, "/v1/models"),
            (Embeddings, "/v1/embeddings"),
            (CohereRerank, "/v1/rerank"),
        ],
        original_paths: &[
            ("/v1/chat/completions", Chat),
            ("/v1/completions", Completions),
            ("/v1/models", Models),
            ("/v1/embeddings", Embeddings),
            ("/v1/rerank", CohereRerank),
        ],
        set_up: set_up::vllm,
        ..TYPICAL
    },
    Row {
        name: "yi",
        host: Some("api.lingyiwanwu.com"),
        ..TYPICAL
    },
    Row {
        name: "zhipuai",
        host: Some("open.bigmodel.cn"),
        capabilities: &[
            (Chat, "/api/paas/v4/chat/completions"),
            (Embeddings, "/api/paas/v4/embeddings"),
        ],
        original_paths: &[
            ("/api/paas/v4/chat/completions", Chat),
            ("/api/coding/paas/v4/chat/completions", Chat),
            ("/api/paas/v4/embeddings", Embeddings),
            ("/api/anthropic/v1/messages", AnthropicMessages),
        ],
        set_up: set_up::zhipuai,
        edit: Some(edits::zhipuai),
        ..TYPICAL
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_higress_has_a_row_in_order() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        let higress = "ai360 azure baichuan baidu bedrock claude cloudflare cohere coze deepl deepseek dify doubao \
            fireworks gemini generic github grok groq hunyuan longcat minimax mistral moonshot ollama openai openrouter \
            qwen spark stepfun together-ai triton vertex vllm yi zhipuai";
        assert_eq!(names, higress.split_whitespace().collect::<Vec<_>>());
        assert_eq!(names.len(), 36);
        assert!(find("nvidia").is_none());
    }

    #[test]
    fn an_api_has_one_path_per_vendor() {
        for row in ROWS {
            for (index, (api, path)) in row.capabilities.iter().enumerate() {
                assert!(path.starts_with('/'), "{} {path}", row.name);
                let again = row.capabilities[index + 1..].iter().any(|other| other.0 == *api);
                assert!(!again, "{} {api:?}", row.name);
            }
        }
    }
}
