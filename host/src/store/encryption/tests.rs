//! Records that are opened at their place with their keys, and nowhere else and with no others.

use super::super::format::{
    ENVELOPE_BYTES, HEADER_BYTES, Header, Kind, NEVER, Salt, Seal, StoreId,
};
use super::*;
use bytes::Bytes;
use crc_fast::crc32_iscsi;

const STORE: StoreId = StoreId([1; 16]);
const TENANT: [u8; 32] = [2; 32];
const KEY: [u8; 32] = [3; 32];
const METADATA: &[u8] = b"what comes with it";
const PAYLOAD: &[u8] = b"an answer that only one may know";

fn keys(first: u8) -> EncryptionKeys {
    let line = |it: u8| format!("k{it} {}\n", format!("{it:02x}").repeat(32));
    EncryptionKeys::parse(&line(first)).unwrap()
}

fn vault(store: StoreId, keys: &EncryptionKeys) -> Vault {
    vault_of(store, keys, false)
}

fn vault_of(store: StoreId, keys: &EncryptionKeys, reads_plain: bool) -> Vault {
    let vault = Vault::new(store, keys, reads_plain);
    vault.keep(Some(&TENANT), [4; 32]);
    vault.keep(Some(&[5; 32]), [6; 32]);
    vault.keep(None, [7; 32]);
    vault
}

fn header(seal: Seal) -> Header {
    Header {
        kind: Kind::Entry,
        seal,
        metadata_bytes: (METADATA.len() + ENVELOPE_BYTES) as u32,
        payload_bytes: PAYLOAD.len() as u32,
        sequence: 9,
        stored_at_ms: 10,
        expires_at_ms: NEVER,
        body_checksum: 0,
        previous: [0; 4],
        key: KEY,
        tenant: TENANT,
    }
}

/// The record as it lies at the beginning of segment 8.
fn record(vault: &Vault, header: &Header) -> Vec<u8> {
    let sealed = vault.seal(header, (METADATA, PAYLOAD), vault.first(), (8, 0));
    let sealed = sealed.unwrap();
    let head = header.encode(Salt::NONE, 0);
    [&head[..], &sealed.metadata, &sealed.payload].concat()
}

/// With a header checksum that fits, as another program might write it.
fn checked(mut record: Vec<u8>) -> Vec<u8> {
    record[32..36].fill(0);
    let checksum = crc32_iscsi(&record[..HEADER_BYTES]);
    record[32..36].copy_from_slice(&checksum.to_le_bytes());
    record
}

fn open(vault: &Vault, record: &[u8]) -> Result<Option<Bytes>, Unopened> {
    vault.open(&KEY, record, Salt::NONE, (8, 0))
}

#[track_caller]
fn check_opened(opened: &Bytes) {
    assert_eq!(&opened[HEADER_BYTES..][..METADATA.len()], METADATA);
    assert_eq!(&opened[HEADER_BYTES + METADATA.len()..], PAYLOAD);
    let header = Header::decode(&checked(opened.to_vec()), Salt::NONE, 0).unwrap();
    assert_eq!(header.seal, Seal::None);
    assert_eq!(header.metadata_bytes as usize, METADATA.len());
    assert_eq!((header.tenant, header.stored_at_ms), (TENANT, 10));
}

#[test]
fn a_record_is_opened_in_its_place_and_shows_nothing_sealed() {
    let vault = vault(STORE, &keys(1));
    for seal in [Seal::Own, Seal::Common] {
        let bytes = record(&vault, &header(seal));
        for what in [METADATA, PAYLOAD, &[4; 32], &[7; 32], &[1; 32]] {
            let mut found = bytes[HEADER_BYTES..].windows(what.len());
            assert!(!found.any(|window| window == what));
        }
        check_opened(&open(&vault, &bytes).unwrap().unwrap());
        let mut head = bytes[..HEADER_BYTES + ENVELOPE_BYTES + METADATA.len()].to_vec();
        let opened = vault
            .open_head(&KEY, &mut head, Salt::NONE, (8, 0))
            .unwrap();
        assert_eq!(&head[opened.shape().metadata()], METADATA);
        assert_eq!(opened.payload_bytes as usize, PAYLOAD.len());
        // The same again is another ciphertext.
        let again = record(&vault, &header(seal));
        let differ = (HEADER_BYTES + 8..bytes.len()).filter(|at| bytes[*at] != again[*at]);
        assert!(differ.count() > 64);
    }
}

#[test]
fn an_altered_byte_is_never_opened_whatever_the_checksums_say() {
    let vault = vault(STORE, &keys(1));
    let whole = record(&vault, &header(Seal::Own));
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut altered = whole.clone();
            altered[at] ^= 1 << bit;
            let altered = checked(altered);
            let opened = open(&vault, &altered);
            match at {
                // The checksums themselves are not sealed.
                32..36 | 40..48 => check_opened(&opened.unwrap().unwrap()),
                _ => assert!(opened.is_err(), "byte {at}"),
            }
            let mut head = altered[..HEADER_BYTES + ENVELOPE_BYTES + METADATA.len()].to_vec();
            let opened = vault.open_head(&KEY, &mut head, Salt::NONE, (8, 0));
            let is_elsewhere = (HEADER_BYTES + 48..HEADER_BYTES + 64).contains(&at)
                || at >= HEADER_BYTES + ENVELOPE_BYTES + METADATA.len()
                || matches!(at, 32..36 | 40..48);
            assert_eq!(opened.is_ok(), is_elsewhere, "byte {at}");
        }
    }
    for cut in 0..whole.len() {
        assert!(open(&vault, &whole[..cut]).is_err(), "cut {cut}");
    }
}

#[test]
fn a_record_counts_at_no_other_place_and_for_nobody_else() {
    let ours = vault(STORE, &keys(1));
    let whole = record(&ours, &header(Seal::Own));
    let damaged = Err(Unopened::Damaged);
    assert_eq!(ours.open(&KEY, &whole, Salt::NONE, (9, 0)), damaged);
    assert_eq!(ours.open(&[9; 32], &whole, Salt::NONE, (8, 0)), damaged);
    // Its header is right there: only the tags tell.
    let moved = [
        &header(Seal::Own).encode(Salt::NONE, 16)[..],
        &whole[HEADER_BYTES..],
    ]
    .concat();
    assert_eq!(ours.open(&KEY, &moved, Salt::NONE, (8, 16)), damaged);
    let elsewhere = vault(StoreId([2; 16]), &keys(1));
    assert_eq!(open(&elsewhere, &whole), damaged);

    let another = |change: fn(&mut Header)| {
        let mut header = header(Seal::Own);
        change(&mut header);
        let head = header.encode(Salt::NONE, 0);
        let bytes = [&head[..], &whole[HEADER_BYTES..]].concat();
        ours.open(&header.key, &bytes, Salt::NONE, (8, 0))
    };
    for change in [
        |it: &mut Header| it.tenant = [5; 32],
        |it: &mut Header| it.key = [5; 32],
        |it: &mut Header| it.sequence = 10,
        |it: &mut Header| it.stored_at_ms = 11,
        |it: &mut Header| it.expires_at_ms = 11,
        |it: &mut Header| it.seal = Seal::Common,
        |it: &mut Header| it.previous = [1; 4],
        |it: &mut Header| {
            it.metadata_bytes -= 1;
            it.payload_bytes += 1;
        },
    ] {
        assert_eq!(another(change), damaged);
    }
    assert!(another(|_| ()).is_ok());
}

#[test]
fn without_its_key_or_its_secret_a_record_stays_closed() {
    let ours = vault(STORE, &keys(1));
    let own = record(&ours, &header(Seal::Own));
    let common = record(&ours, &header(Seal::Common));
    assert_eq!(open(&vault(STORE, &keys(2)), &own), Err(Unopened::Damaged));
    let line = |it: u8| format!("k{it} {}\n", format!("{it:02x}").repeat(32));
    let both = EncryptionKeys::parse(&(line(2) + &line(1))).unwrap();
    let rotated = vault(STORE, &both);
    check_opened(&open(&rotated, &own).unwrap().unwrap());
    let new = record(&rotated, &header(Seal::Own));
    assert_eq!(open(&ours, &new), Err(Unopened::Damaged));
    rotated.set_keys(&keys(2));
    check_opened(&open(&rotated, &new).unwrap().unwrap());
    assert_eq!(open(&rotated, &own), Err(Unopened::Damaged));

    ours.forget(Some(&TENANT));
    assert_eq!(open(&ours, &own), Err(Unopened::Forgotten));
    check_opened(&open(&ours, &common).unwrap().unwrap());
    ours.keep(Some(&TENANT), Vault::new_secret().unwrap());
    assert_eq!(open(&ours, &own), Err(Unopened::Damaged));
    ours.forget(None);
    assert_eq!(open(&ours, &common), Err(Unopened::Forgotten));
}

#[test]
fn what_is_not_sealed_is_read_only_while_it_is_converted() {
    let plain = Header {
        seal: Seal::None,
        ..header(Seal::None)
    };
    let bytes = [&plain.encode(Salt::NONE, 0)[..], &[0; 200]].concat();
    let strict = vault(STORE, &keys(1));
    assert_eq!(open(&strict, &bytes), Err(Unopened::Damaged));
    let converting = vault_of(STORE, &keys(1), true);
    assert_eq!(open(&converting, &bytes), Ok(None));
    let shown = format!("{strict:?}{:?}", Wiped([4; 32]));
    assert!(!shown.contains('4') || shown.len() < 80, "{shown}");
}
