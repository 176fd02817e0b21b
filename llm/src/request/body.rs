//! The body of a request: read strictly, judged by its API's table, written canonically.

use crate::api::Field;
use crate::json::{self, Document, Invalid, Kind, Value};
use crate::key::canonical;
use crate::request::origin::Origin;
use crate::request::outline::{Outline, is_listed};
use crate::request::outside;
use crate::{Api, Bypass, KeyHasher, Representation, Rules};

/// The longest body that is read at all. Reading takes little memory beside it: at most 300 KiB, and
/// half as much as the body for one that is nothing but keys. Edges bound what they buffer far below
/// this.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// A body whose answer may be cached.
pub(crate) struct Body<'b> {
    document: Document<'b>,
    api: Api,
    representation: Representation,
}

impl<'b> Body<'b> {
    /// Reads a body, whose representation the query may have chosen already.
    pub(crate) fn read(
        api: Api,
        mut representation: Representation,
        rules: Option<&Rules>,
        bytes: &'b [u8],
    ) -> Result<Self, Bypass> {
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Bypass::BodyTooLarge);
        }
        let document = json::read(bytes)?;
        let root = document.root();
        if root.kind() != Kind::Object {
            return Err(Bypass::NotObject);
        }
        for (key, value) in root.members() {
            let name = &*key.map(Value::name).unwrap_or_default();
            if value.kind() == Kind::Null {
                continue;
            }
            let field = api.field(name);
            if let Some(rules) = rules {
                if value.kind() != Kind::False && is_listed(&rules.bypass_fields, name) {
                    return Err(Bypass::Rule);
                }
                let is_settled =
                    is_listed(&rules.ignored_fields, name) || is_listed(&rules.keyed_fields, name);
                if is_settled && field.is_none_or(Field::yields) {
                    continue;
                }
            }
            match field {
                None if api.generates() => {
                    if let Some(bypass) = outside::field(name, value) {
                        return Err(bypass);
                    }
                }
                None | Some(Field::Ignored | Field::Names) => {}
                Some(Field::CacheOptions) => {
                    // The cache is warmed, and nothing is answered.
                    let prewarm = value.get("prewarm");
                    if prewarm.is_some_and(|it| !matches!(it.kind(), Kind::Null | Kind::False)) {
                        return Err(Bypass::ProviderState);
                    }
                }
                Some(Field::Stream) => {
                    representation = match value.kind() {
                        Kind::False => Representation::Json,
                        Kind::True => Representation::Sse,
                        _ => return Err(Bypass::FieldType),
                    };
                }
                Some(Field::MustBeFalse(bypass) | Field::MayBeFalse(bypass)) => {
                    if value.kind() != Kind::False {
                        return Err(bypass);
                    }
                }
                Some(Field::Refused(bypass)) => return Err(bypass),
                Some(Field::Model) => {
                    let names = core::iter::once(value).chain(value.elements());
                    let mut names = names.filter_map(Value::string);
                    if let Some(bypass) = names.find_map(|name| outside::model(&name)) {
                        return Err(bypass);
                    }
                }
                Some(Field::Tools(run_by_client)) => {
                    if value.kind() != Kind::Array || !value.elements().all(run_by_client) {
                        return Err(Bypass::HostedTool);
                    }
                }
                Some(Field::Items(bypass)) => {
                    if let Some(bypass) = value.elements().find_map(bypass) {
                        return Err(bypass);
                    }
                }
            }
        }
        if api.row().stored_by_default && root.get_some("store").is_none() {
            return Err(Bypass::Store);
        }
        Ok(Self {
            document,
            api,
            representation,
        })
    }

    pub(crate) fn representation(&self) -> Representation {
        self.representation
    }

    /// About how long its canonical spelling is.
    pub(crate) fn expected_bytes(&self) -> usize {
        self.document.text_bytes()
    }

    pub(crate) fn root(&self) -> Value<'_> {
        self.document.root()
    }

    /// Whether the temperature that is asked for, if one is, is at most this.
    pub(crate) fn check_temperature(&self, most: f64) -> Result<(), Bypass> {
        for path in self.api.row().temperature_at {
            let found = path
                .iter()
                .try_fold(self.root(), |value, name| value.get_some(name));
            let Some(asked) = found else { continue };
            let number = match asked.kind() {
                Kind::Number => core::str::from_utf8(asked.spelling()).ok(),
                _ => None,
            };
            let number = number.and_then(|number| number.parse::<f64>().ok());
            if number.ok_or(Bypass::FieldType)? > most {
                return Err(Bypass::Temperature);
            }
        }
        Ok(())
    }

    /// Writes the parts of the body that count, in their canonical spelling.
    pub(crate) fn write(&self, origin: Origin, rules: Option<&Rules>, out: &mut KeyHasher) {
        let outline = Outline::of(self.api, origin, rules);
        canonical::write(self.document.root(), outline, out);
    }
}

impl From<Invalid> for Bypass {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::ByteOrderMark => Self::ByteOrderMark,
            Invalid::DuplicateKey => Self::DuplicateKey,
            Invalid::NotUtf8 => Self::NotUtf8,
            Invalid::Surrogate => Self::LoneSurrogate,
            Invalid::Syntax => Self::NotJson,
            Invalid::TooDeep => Self::TooDeep,
            Invalid::TooLarge => Self::BodyTooLarge,
            Invalid::Trailing => Self::TrailingData,
        }
    }
}
