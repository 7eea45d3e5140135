//! Which API a request is for: decoded path → API name (ai-proxy spec §4).
//!
//! Only the path counts, never the method. Vendors with paths of their own add a detector to their row, used under
//! `protocol: original`.

use std::sync::LazyLock;

use regex::Regex;

macro_rules! apis {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// An API of the LLM world, named as in Higress's `capabilities`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Api { $($(#[$doc])* $variant,)+ }

        impl Api {
            /// Every API.
            pub const ALL: &'static [Api] = &[$(Api::$variant,)+];

            /// Higress's name (`openai/v1/chatcompletions`).
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Api::$variant => $name,)+ }
            }
        }
    };
}

apis! {
    /// Chat completions.
    Chat = "openai/v1/chatcompletions",
    /// Text completions.
    Completions = "openai/v1/completions",
    /// Embeddings.
    Embeddings = "openai/v1/embeddings",
    /// Text to speech.
    AudioSpeech = "openai/v1/audiospeech",
    /// Speech to text.
    AudioTranscription = "openai/v1/audiotranscription",
    /// Speech to English text.
    AudioTranslation = "openai/v1/audiotranslation",
    /// Realtime WebSocket.
    Realtime = "openai/v1/realtime",
    /// Image generation.
    ImageGeneration = "openai/v1/imagegeneration",
    /// Image variation (multipart).
    ImageVariation = "openai/v1/imagevariation",
    /// Image edit (multipart).
    ImageEdit = "openai/v1/imageedit",
    /// Batches: create, list.
    Batches = "openai/v1/batches",
    /// One batch.
    RetrieveBatch = "openai/v1/retrievebatch",
    /// Cancel a batch.
    CancelBatch = "openai/v1/cancelbatch",
    /// Files: upload, list.
    Files = "openai/v1/files",
    /// One file.
    RetrieveFile = "openai/v1/retrievefile",
    /// A file's content.
    RetrieveFileContent = "openai/v1/retrievefilecontent",
    /// List of models.
    Models = "openai/v1/models",
    /// Fine-tuning jobs: create, list.
    FineTuningJobs = "openai/v1/fine-tuningjobs",
    /// One fine-tuning job.
    RetrieveFineTuningJob = "openai/v1/retrievefine-tuningjob",
    /// Events of a fine-tuning job.
    FineTuningJobEvents = "openai/v1/fine-tuningjobsevents",
    /// Checkpoints of a fine-tuning job.
    FineTuningJobCheckpoints = "openai/v1/fine-tuningjobcheckpoints",
    /// Cancel a fine-tuning job.
    CancelFineTuningJob = "openai/v1/cancelfine-tuningjob",
    /// Resume a fine-tuning job.
    ResumeFineTuningJob = "openai/v1/resumefine-tuningjob",
    /// Pause a fine-tuning job.
    PauseFineTuningJob = "openai/v1/pausefine-tuningjob",
    /// Permissions of a checkpoint.
    CheckpointPermissions = "openai/v1/fine-tuningjobcheckpointpermissions",
    /// One permission of a checkpoint.
    DeleteCheckpointPermission = "openai/v1/deletefine-tuningjobcheckpointpermission",
    /// Responses.
    Responses = "openai/v1/responses",
    /// Videos: create, list.
    Videos = "openai/v1/videos",
    /// One video.
    RetrieveVideo = "openai/v1/retrievevideo",
    /// A video's content.
    RetrieveVideoContent = "openai/v1/retrievevideocontent",
    /// Remix a video.
    VideoRemix = "openai/v1/videoremix",
    /// Anthropic Messages.
    AnthropicMessages = "anthropic/v1/messages",
    /// Anthropic's old text completions.
    AnthropicComplete = "anthropic/v1/complete",
    /// Cohere rerank.
    CohereRerank = "cohere/v1/rerank",
    /// Qwen rerank.
    QwenRerank = "qwen/v1/rerank",
    /// Qwen conversations.
    QwenConversations = "qwen/v1/conversations",
    /// Qwen asynchronous services.
    QwenAsyncAigc = "qwen/v1/services/aigc",
    /// Qwen tasks.
    QwenTasks = "qwen/v1/tasks",
    /// Gemini's own generateContent.
    GeminiGenerate = "gemini/v1beta/generatecontent",
    /// Gemini's own streamGenerateContent.
    GeminiStreamGenerate = "gemini/v1beta/streamgeneratecontent",
    /// Any of Vertex's own calls.
    VertexRaw = "vertex/raw",
}

/// Paths that end like this name the API; the first that fits is taken.
const SUFFIXES: &[(&str, Api)] = &[
    ("/v1/chat/completions", Api::Chat),
    ("/v1/completions", Api::Completions),
    ("/v1/embeddings", Api::Embeddings),
    ("/v1/audio/speech", Api::AudioSpeech),
    ("/v1/audio/transcriptions", Api::AudioTranscription),
    ("/v1/audio/translations", Api::AudioTranslation),
    ("/v1/realtime", Api::Realtime),
    ("/v1/images/generations", Api::ImageGeneration),
    ("/v1/images/variations", Api::ImageVariation),
    ("/v1/images/edits", Api::ImageEdit),
    ("/v1/batches", Api::Batches),
    ("/v1/files", Api::Files),
    ("/v1/models", Api::Models),
    ("/v1/fine_tuning/jobs", Api::FineTuningJobs),
    ("/v1/responses", Api::Responses),
    ("/v1/videos", Api::Videos),
    ("/v1/messages", Api::AnthropicMessages),
    ("/v1/complete", Api::AnthropicComplete),
    ("/v1/rerank", Api::CohereRerank),
    ("/v1/reranks", Api::QwenRerank),
    ("/v1/conversations", Api::QwenConversations),
];

/// Paths with an id: the last segments, `*` for any one.
const PATTERNS: &[(&[&str], Api)] = &[
    (&["v1", "batches", "*"], Api::RetrieveBatch),
    (&["v1", "batches", "*", "cancel"], Api::CancelBatch),
    (&["v1", "files", "*"], Api::RetrieveFile),
    (&["v1", "files", "*", "content"], Api::RetrieveFileContent),
    (&["v1", "videos", "*"], Api::RetrieveVideo),
    (&["v1", "videos", "*", "content"], Api::RetrieveVideoContent),
    (&["v1", "videos", "*", "remix"], Api::VideoRemix),
    (&["v1", "fine_tuning", "jobs", "*"], Api::RetrieveFineTuningJob),
    (
        &["v1", "fine_tuning", "jobs", "*", "events"],
        Api::FineTuningJobEvents,
    ),
    (
        &["v1", "fine_tuning", "jobs", "*", "checkpoints"],
        Api::FineTuningJobCheckpoints,
    ),
    (
        &["v1", "fine_tuning", "jobs", "*", "cancel"],
        Api::CancelFineTuningJob,
    ),
    (
        &["v1", "fine_tuning", "jobs", "*", "resume"],
        Api::ResumeFineTuningJob,
    ),
    (
        &["v1", "fine_tuning", "jobs", "*", "pause"],
        Api::PauseFineTuningJob,
    ),
    (
        &["v1", "fine_tuning", "checkpoints", "*", "permissions"],
        Api::CheckpointPermissions,
    ),
    (
        &["v1", "fine_tuning", "checkpoints", "*", "permissions", "*"],
        Api::DeleteCheckpointPermission,
    ),
];

/// Ends of paths with a vendor's own prefix (`/api/v3`, `/openai/deployments/NAME`, DashScope's services), and the API
/// that each is alike.
const ENDS: &[(&str, Api)] = &[
    ("/chat/completions", Api::Chat),
    ("/completions", Api::Completions),
    ("/embeddings", Api::Embeddings),
    ("/responses", Api::Responses),
    ("/messages", Api::AnthropicMessages),
    ("/text-generation/generation", Api::Chat),
    ("/multimodal-generation/generation", Api::Chat),
];

static GEMINI: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("/[^/]+/models/[^:]+:(generateContent|streamGenerateContent)").ok());

impl Api {
    /// The API that a decoded path without query names; `None` for one we do not know.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Api> {
        if let Some(row) = SUFFIXES.iter().find(|row| path.ends_with(row.0)) {
            return Some(row.1);
        }
        if let Some(row) = PATTERNS.iter().find(|row| ends_with_segments(path, row.0)) {
            return Some(row.1);
        }
        if !path.contains("enerateContent") {
            return None;
        }
        let action = GEMINI.as_ref()?.captures(path)?.get(1)?;
        Some(if action.as_str() == "generateContent" {
            Api::GeminiGenerate
        } else {
            Api::GeminiStreamGenerate
        })
    }

    /// The API that a decoded path names, or else is alike by its end. For whoever accounts for answers: requests are not
    /// routed or translated by it.
    #[must_use]
    pub fn alike(path: &str) -> Option<Api> {
        let by_end = || ENDS.iter().find(|row| path.ends_with(row.0)).map(|row| row.1);
        Self::of_path(path).or_else(by_end)
    }

    /// The API of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Api> {
        Self::ALL.iter().copied().find(|api| api.name() == name)
    }

    /// Whether a `capabilities` entry of the configuration may name it (ai-proxy spec §1.6).
    #[must_use]
    pub fn is_configurable(self) -> bool {
        matches!(
            self,
            Api::Chat
                | Api::Embeddings
                | Api::ImageGeneration
                | Api::ImageVariation
                | Api::ImageEdit
                | Api::AudioSpeech
                | Api::AudioTranscription
                | Api::AudioTranslation
                | Api::Realtime
                | Api::Responses
                | Api::Videos
                | Api::RetrieveVideo
                | Api::RetrieveVideoContent
                | Api::VideoRemix
                | Api::CohereRerank
        )
    }

    /// Whether a vendor keeps state behind it, so that one consumer must stay with one token (§6.1).
    #[must_use]
    pub fn is_stateful(self) -> bool {
        matches!(
            self,
            Api::Responses
                | Api::Files
                | Api::RetrieveFile
                | Api::RetrieveFileContent
                | Api::Batches
                | Api::RetrieveBatch
                | Api::CancelBatch
                | Api::FineTuningJobs
                | Api::RetrieveFineTuningJob
                | Api::FineTuningJobEvents
                | Api::FineTuningJobCheckpoints
                | Api::CancelFineTuningJob
                | Api::ResumeFineTuningJob
        )
    }

    /// Whether `stream: true` makes its answer a stream that `firstByteTimeout` watches (§10.6).
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(
            self,
            Api::Completions
                | Api::Chat
                | Api::ImageGeneration
                | Api::ImageEdit
                | Api::Responses
                | Api::QwenAsyncAigc
                | Api::AnthropicMessages
                | Api::AnthropicComplete
                | Api::GeminiStreamGenerate
        )
    }

    /// Whether the answer to a request for this path may be a JSON array that grows, an element at a time: Gemini's stream,
    /// where it was not asked for as events (`alt=sse`).
    #[must_use]
    pub fn streams_an_array(path: &str) -> bool {
        path.contains(":streamGenerateContent") && Self::of_path(path) == Some(Api::GeminiStreamGenerate)
    }

    /// Whether a multipart body is read for it.
    #[must_use]
    pub fn takes_multipart(self) -> bool {
        matches!(self, Api::ImageEdit | Api::ImageVariation)
    }
}

/// Whether `path` ends in these segments and something, at least a slash, stands before them.
fn ends_with_segments(path: &str, wanted: &[&str]) -> bool {
    let mut segments = path.rsplit('/');
    wanted.iter().rev().all(|want| match segments.next() {
        Some(segment) if *want == "*" => !segment.is_empty(),
        Some(segment) => segment == *want,
        None => false,
    }) && segments.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suffix_with_and_without_a_prefix() {
        for (suffix, api) in SUFFIXES {
            assert_eq!(Api::of_path(suffix), Some(*api));
            assert_eq!(Api::of_path(&format!("/proxy/x{suffix}")), Some(*api));
            assert_eq!(Api::of_path(&format!("{suffix}/")), None, "{suffix}/");
        }
    }

    #[test]
    fn every_pattern() {
        for (segments, api) in PATTERNS {
            let path = format!("/{}", segments.join("/").replace('*', "id-1"));
            assert_eq!(Api::of_path(&path), Some(*api), "{path}");
            assert_eq!(Api::of_path(&format!("/p{path}")), Some(*api));
        }
        assert_eq!(Api::of_path("/v1/files/a/b"), None);
        assert_eq!(Api::of_path("/v1/files//content"), None);
    }

    #[test]
    fn gemini_and_unknown() {
        let generate = "/v1beta/models/gemini-pro:generateContent";
        assert_eq!(Api::of_path(generate), Some(Api::GeminiGenerate));
        let stream = "/g/v1/models/m:streamGenerateContent";
        assert_eq!(Api::of_path(stream), Some(Api::GeminiStreamGenerate));
        assert_eq!(Api::of_path("/models/m:generateContent"), None);
        let vertex = "/v1/projects/p/locations/l/publishers/google/models/m:streamGenerateContent";
        for (path, is_one) in [
            (stream, true),
            (vertex, true),
            (generate, false),
            ("/:streamGenerateContent", false),
        ] {
            assert_eq!(Api::streams_an_array(path), is_one, "{path}");
        }
        for unknown in ["/v1/unknown", "/", "", "/v1/chat/completion"] {
            assert_eq!(Api::of_path(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn names_are_unique() {
        for api in Api::ALL {
            assert_eq!(Api::of_name(api.name()), Some(*api));
        }
    }

    #[test]
    fn paths_of_vendors_own_are_alike() {
        for (path, api) in [
            ("/v1/chat/completions", Some(Api::Chat)),
            ("/api/v3/chat/completions", Some(Api::Chat)),
            ("/api/paas/v4/chat/completions", Some(Api::Chat)),
            ("/openai/deployments/x/completions", Some(Api::Completions)),
            ("/openai/deployments/x/embeddings", Some(Api::Embeddings)),
            ("/openai/responses", Some(Api::Responses)),
            ("/anthropic/messages", Some(Api::AnthropicMessages)),
            (
                "/api/v1/services/aigc/text-generation/generation",
                Some(Api::Chat),
            ),
            (
                "/api/v1/services/aigc/multimodal-generation/generation",
                Some(Api::Chat),
            ),
            ("/api/v1/services/aigc/image-generation/generation", None),
            ("/api/items", None),
        ] {
            assert_eq!(Api::alike(path), api, "{path}");
        }
        assert_eq!(Api::of_path("/api/v3/chat/completions"), None);
    }
}
