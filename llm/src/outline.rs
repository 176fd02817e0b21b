//! Which members of a body are out of the key, by where in the body they stand.
//!
//! The same name elsewhere counts: a `user` inside a message, or a `cache_control` that is an
//! argument of somebody's function, is what the model gets to see.

use crate::Api;
use crate::json::{Kind, Value};

/// What of a body is left out of its canonical spelling.
pub(crate) struct Outline {
    api: Api,
    has_markers: bool,
}

/// Where in a body a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    /// In the outermost object.
    Top,
    /// In a content block, or on the way to one, by members that hold blocks.
    Blocks,
    /// Anywhere else. All of it counts.
    Data,
}

/// The hint to the provider's prompt cache that a block may carry.
const MARKER: &[u8] = b"cache_control";

/// The members that hold blocks, or objects that hold some. Not `input` and `input_schema`: what
/// these hold is the user's own.
const HOLD_BLOCKS: [&[u8]; 5] = [b"content", b"messages", b"source", b"system", b"tools"];

impl Outline {
    pub(crate) fn of(api: Api) -> Self {
        Self {
            api,
            has_markers: api.row().has_markers,
        }
    }

    /// Whether a member is out of the key.
    pub(crate) fn omits(&self, region: Region, name: &[u8], value: Value<'_>) -> bool {
        match region {
            Region::Top => self.api.field(name).is_some_and(|field| !field.is_in_key()),
            // Of another kind it is no marker.
            Region::Blocks => name == MARKER && matches!(value.kind(), Kind::Object | Kind::Null),
            Region::Data => false,
        }
    }

    /// Where the members of a member stand.
    pub(crate) fn inside(&self, region: Region, name: &[u8]) -> Region {
        match region {
            Region::Top | Region::Blocks if self.has_markers && HOLD_BLOCKS.contains(&name) => {
                Region::Blocks
            }
            _ => Region::Data,
        }
    }
}
