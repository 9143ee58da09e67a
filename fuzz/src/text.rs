//! The text codec: files of flows as `ovs-dpctl` writes them.

use wye::flow::FlowKey;
use wye::flow::text::{PortNames, format_flow, parse_actions, parse_flow, parse_flow_file, parse_key};

/// Whatever is read is written in a form that reads as the same flow.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names = PortNames::NONE;
    // These take parts of what the file takes; here they only have to stand it.
    let _ = parse_key(text, &names);
    let _ = parse_actions(text, &names);
    let Ok(flows) = parse_flow_file(text, &names) else { return };
    assert!(flows.len() <= text.lines().count());
    for (_, flow) in flows {
        let written = format_flow(&flow.key, &flow.mask, &flow.actions, &names);
        let again = parse_flow(&written, &names);
        let again = again.unwrap_or_else(|e| panic!("what was written is refused: {e}\n{written}"));
        // Bits outside the mask say nothing, and a field without any mask is not written.
        let masked = |key: &FlowKey| key.masked(&flow.mask);
        let same = (masked(&again.key), &again.mask, &again.actions) == (masked(&flow.key), &flow.mask, &flow.actions);
        assert!(same, "a flow changed when it was written and read:\n{written}");
    }
}
