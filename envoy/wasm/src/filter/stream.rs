//! Properties of the request that Envoy is calling for, beside headers and bodies.

use proxy_wasm::hostcalls;

use reflex_envoy_core::module::Module;
use reflex_envoy_core::unread::Ticket;

/// Envoy's response flags UT, LR, UR, UF, UC, UMSDR and UPE: the provider's time is up, its stream was
/// reset, its connection has failed or ended, or what it says is no HTTP. A body that is shorter than
/// promised counts as the last one.
const PROVIDER_FAILED: u64 = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x8_0000 | 0x80_0000;

/// Whether the provider, or the connection to it, has ended the answer.
pub(super) fn has_broken() -> bool {
    number(["response", "flags"]).unwrap_or(0) & PROVIDER_FAILED > 0
}

/// A request has begun: its client has read the answer to its last one.
pub(super) fn heard_from(module: &Module) {
    if module.unread.borrow().is_empty() {
        return;
    }
    if let Some(connection) = connection() {
        module.unread.borrow_mut().heard_from(connection);
    }
}

/// An answer that counts is about to be handed over.
pub(super) fn goes_to(module: &Module, ticket: Ticket) {
    if let Some(connection) = connection() {
        let mut unread = module.unread.borrow_mut();
        unread.goes_to(ticket, connection);
    }
}

/// Its connection, if that brings one request after the other.
fn connection() -> Option<u64> {
    let protocol = hostcalls::get_property(vec!["request", "protocol"]);
    let is_serial = protocol.ok()??.starts_with(b"HTTP/1");
    number(["connection", "id"]).filter(|_| is_serial)
}

fn number(path: [&str; 2]) -> Option<u64> {
    let bytes = hostcalls::get_property(path.to_vec()).ok()??;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
