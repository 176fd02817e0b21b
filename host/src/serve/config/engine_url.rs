//! The URL of a fleet's engine, as it is written.

use super::read::{Kind, Scalar, quoted};

/// The URL of an engine. It is shown without its password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineUrl(pub(super) String);

impl Scalar for EngineUrl {
    const KIND: Kind = Kind::Text;

    fn form() -> String {
        "a URL such as \"redis://127.0.0.1:6379\"".into()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> String {
        let shown = match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
            _ => self.0.clone(),
        };
        quoted(&shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let check = |url: &str, shown: &str| {
            let read = EngineUrl::from_text(url).expect("a text");
            assert_eq!(Scalar::write(&read), shown);
        };
        check("", "\"\"");
        check("redis://a:1", "\"redis://a:1\"");
        check("redis://u:p@a:1/2", "\"redis://***@a:1/2\"");
        check("redis+cluster://:p@x@a,b", "\"redis+cluster://***@a,b\"");
    }
}
