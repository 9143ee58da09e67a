//! The netlink codec. The input is three lists of attributes, key, mask and actions, the first two with their lengths before
//! them (two bytes, little-endian).

use wye::flow::netlink::{
    decode_actions, decode_key, decode_mask, encode_actions, encode_key, encode_mask, exact_mask,
};

/// What is accepted is in one form, which survives being written and read.
pub fn run(bytes: &[u8]) {
    let Some((key_bytes, bytes)) = counted(bytes) else { return };
    let Some((mask_bytes, action_bytes)) = counted(bytes) else { return };

    if let Ok(key) = decode_key(key_bytes) {
        let mut again = Vec::new();
        encode_key(&key, &mut again);
        assert_eq!(decode_key(&again), Ok(key), "a key changed when it was written and read");
        assert!(exact_mask(&key).matches(&key, &key));
        if let Ok(mask) = decode_mask(mask_bytes, &key) {
            again.clear();
            encode_mask(&key, &mask, &mut again);
            assert_eq!(decode_mask(&again, &key), Ok(mask), "a mask changed when it was written and read");
        }
    }
    if let Ok(actions) = decode_actions(action_bytes) {
        let mut again = Vec::new();
        encode_actions(&actions, &mut again).expect("what was read can be written");
        assert_eq!(decode_actions(&again), Ok(actions), "actions changed when they were written and read");
    }
}

/// The list that `bytes` begin with, and what is behind it.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}
