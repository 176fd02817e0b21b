//! The provider, as far as its treatment of a request is known.

/// A kind of provider, by its host. How a gateway or a private server treats a request is not
/// known, whatever API it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// OpenAI itself, and Azure, which runs the same.
    OpenAi,
    /// Anthropic itself.
    Anthropic,
    /// Google itself.
    Google,
    /// A host of which only this is known: `user` names a user in case of abuse, and changes
    /// nothing.
    NamesUsers,
    /// Any other.
    Other,
}

/// Hosts, by the end of their names. An end that begins with a dot is a domain: hosts below it.
const HOSTS: &[(&str, Origin)] = &[
    ("api.openai.com", Origin::OpenAi),
    (".api.openai.com", Origin::OpenAi),
    (".openai.azure.com", Origin::OpenAi),
    (".openai.azure.us", Origin::OpenAi),
    (".openai.azure.cn", Origin::OpenAi),
    (".cognitiveservices.azure.com", Origin::OpenAi),
    (".cognitiveservices.azure.us", Origin::OpenAi),
    (".cognitiveservices.azure.cn", Origin::OpenAi),
    (".services.ai.azure.com", Origin::OpenAi),
    (".services.ai.azure.us", Origin::OpenAi),
    ("api.anthropic.com", Origin::Anthropic),
    ("generativelanguage.googleapis.com", Origin::Google),
    ("aiplatform.googleapis.com", Origin::Google),
    ("-aiplatform.googleapis.com", Origin::Google),
    ("api.groq.com", Origin::NamesUsers),
    ("api.x.ai", Origin::NamesUsers),
    (".api.x.ai", Origin::NamesUsers),
];

impl Origin {
    /// The origin of a provider given as `scheme://authority`.
    pub(crate) fn of(upstream: &str) -> Self {
        // In bytes: each request asks this.
        let upstream = upstream.as_bytes();
        let scheme_end = upstream.windows(3).position(|three| three == b"://");
        let authority = scheme_end.map_or(&[][..], |at| &upstream[at + 3..]);
        let host = match authority.iter().rposition(|&byte| byte == b':') {
            Some(at) if authority[at + 1..].iter().all(u8::is_ascii_digit) => &authority[..at],
            _ => authority,
        };
        let ends = |end: &str| {
            let end = end.as_bytes();
            let at = host.len().checked_sub(end.len());
            at.is_some_and(|at| host[at..].eq_ignore_ascii_case(end))
                && (matches!(end[0], b'.' | b'-') || host.len() == end.len())
        };
        let found = HOSTS.iter().find(|(end, _)| ends(end));
        found.map_or(Self::Other, |&(_, origin)| origin)
    }

    /// Whether the provider is known to ignore a field that names the user or the purpose.
    pub(crate) fn ignores(self, name: &[u8]) -> bool {
        match self {
            Self::OpenAi | Self::Anthropic | Self::Google => true,
            Self::NamesUsers => name == b"user",
            Self::Other => false,
        }
    }

    /// Whether answers are known to depend only on the request and on what it names.
    pub(crate) fn has_no_memory(self) -> bool {
        self != Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_known_by_their_hosts() {
        let check = |upstream: &str, origin: Origin| {
            assert_eq!(Origin::of(upstream), origin, "{upstream}");
        };
        check("https://api.openai.com", Origin::OpenAi);
        check("https://API.OpenAI.com:443", Origin::OpenAi);
        check("https://eu.api.openai.com", Origin::OpenAi);
        check("https://mine.openai.azure.com", Origin::OpenAi);
        check("https://mine.cognitiveservices.azure.com", Origin::OpenAi);
        check("https://mine.services.ai.azure.com", Origin::OpenAi);
        check("https://api.anthropic.com", Origin::Anthropic);
        let google = "https://europe-west1-aiplatform.googleapis.com";
        check(google, Origin::Google);
        check("https://api.groq.com", Origin::NamesUsers);
        for other in [
            "",
            "https://",
            "https://openai.azure.com",
            "https://api.openai.com.evil.test",
            "https://myapi.openai.com",
            "https://evilapi.openai.com:443",
            "https://mine.azure-api.net",
            "https://litellm.internal:4000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
        ] {
            check(other, Origin::Other);
        }
    }
}
