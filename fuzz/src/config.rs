//! The configuration file of `wye run`, which people write by hand and programs write for them.

use wye::gateway::config::GatewayConfig;

/// Longer files say nothing new.
const LEN_MAX: usize = 4096;

/// A file is accepted, and then has what a switch needs, or refused with a line of it.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() > LEN_MAX {
        return;
    }
    match GatewayConfig::parse("switch.toml", text) {
        Ok(config) => {
            assert!(!config.ports.is_empty(), "a switch without a port");
            assert!(config.workers.count > 0 && config.workers.burst > 0);
            assert!(config.workers.cores.is_empty() || config.workers.cores.len() == config.workers.count);
            let mut numbers: Vec<u32> = config.ports.iter().map(|port| port.number).collect();
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "two ports of one number");
        }
        Err(error) => {
            // What is never closed is missed behind the last line.
            assert!((1..=text.lines().count() + 1).contains(&error.line), "line {} of the file", error.line);
            assert!(!error.message.is_empty());
        }
    }
}
