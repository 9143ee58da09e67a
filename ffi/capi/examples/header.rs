//! Writes the C header to standard output: `make header` puts it in its place.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"));
    let bindings = config.map_err(|e| format!("cbindgen.toml: {e}")).and_then(|config| {
        cbindgen::Builder::new().with_crate(root).with_config(config).generate().map_err(|e| e.to_string())
    });
    match bindings {
        Ok(bindings) => {
            let mut header = Vec::new();
            bindings.write(&mut header);
            // Rust's word for it, which clippy asks for.
            print!("{}", String::from_utf8_lossy(&header).replace("# Safety\n", "Precondition:\n"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
