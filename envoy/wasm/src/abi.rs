//! The one call of proxy-wasm that the SDK makes too dear: it hands headers over with two copies of
//! each name and value. Here their bytes come as Envoy has written them, for `pairs` to read in place.

#![expect(unsafe_code, reason = "Envoy hands over memory by its address")]

use proxy_wasm::types::MapType;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Writes where the bytes are and how many, and returns 0. They were made by this module's
    /// allocator, by the function that the SDK exports for that, and are the module's from now on.
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
}

/// The bytes of headers; empty if Envoy has none of that kind now.
pub(crate) fn headers(map: MapType) -> Vec<u8> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: both places are valid for a write, and Envoy writes to them only during the call.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &raw mut data, &raw mut size) };
    if status != 0 || data.is_null() {
        return Vec::new();
    }
    // SAFETY: the SDK's export has allocated a boxed slice of `size` bytes and given it away; Envoy
    // asks for it in this call, writes every byte, and keeps no pointer to it. An Envoy that names
    // other bytes harms this module alone, which is all that it could reach.
    unsafe { Vec::from_raw_parts(data, size, size) }
}
