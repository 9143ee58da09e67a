//! `wye run` without interfaces: what it says about its configuration.

use wye::gateway::config::GatewayConfig;

use crate::{wye_err, wye_ok};

fn sample() -> String {
    wye_ok(&["run", "--sample-config"])
}

fn parse(text: &str) -> GatewayConfig {
    GatewayConfig::parse("sample", text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Each option of the sample that is commented out: the text with this one in force, its name, and whether it is only an example.
fn options(sample: &str) -> Vec<(String, &str, bool)> {
    let lines: Vec<&str> = sample.lines().collect();
    let is_option = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
    let at = (0..lines.len()).filter(|&at| is_option(lines[at]));
    at.map(|at| {
        let mut text = lines.clone();
        text[at] = &text[at][1..];
        let name = text[at].split(" = ").next().unwrap();
        (text.join("\n"), name, lines[at - 1].ends_with("For example:"))
    })
    .collect()
}

#[test]
fn sample_config_parses_with_each_option_in_force() {
    let sample = sample();
    let plain = parse(&sample);
    let counts = (plain.ports.len(), plain.routes.len(), plain.neighbours.len(), plain.vpcs.len());
    assert_eq!(counts, (6, 1, 1, 1));
    let options = options(&sample);
    assert!(options.len() > 30);
    options.iter().for_each(|(text, ..)| drop(parse(text)));
}

#[test]
fn sample_config_shows_the_defaults_of_all_but_examples() {
    let sample = sample();
    // Of a port the option is then given, which the configuration can tell.
    let shown = |text: &str| {
        let config = parse(text);
        let vlans: Vec<_> = config.ports.iter().map(|port| (port.number, port.vlans.clone())).collect();
        format!("{:?} {:?} {:?} {:?} {vlans:?}", config.control, config.datapath, config.bridge, config.workers)
    };
    let plain = shown(&sample);
    for (text, name, is_example) in options(&sample) {
        if !is_example && name != "native" {
            assert_eq!(shown(&text), plain, "{name}");
        }
    }
}

#[test]
fn sample_config_has_every_setting_there_is() {
    let sample = sample();
    let port = "[[port]]\nname = 'a'\nkind = 'tap'\n";
    let overlay = ["[[route]]\n", "[[neighbour]]\n", "[[vpc]]\n"];
    for table in ["", "[workers]\n", "[bridge]\n", "[datapath]\n", port].into_iter().chain(overlay) {
        let tail = if table == port { "" } else { port };
        let refusal = GatewayConfig::parse("x", &format!("{table}nonsense = 1\n{tail}")).unwrap_err().message;
        let names: Vec<&str> = refusal.split('`').skip(3).step_by(2).take_while(|n| !n.contains('=')).collect();
        assert!(names.len() > if table.contains("neighbour") { 2 } else { 4 }, "{refusal}");
        for name in names {
            let is_there = |line: &str| {
                let line = line.trim_start_matches('#');
                line.starts_with(&format!("{name} = ")) || line.trim_matches(['[', ']']) == name
            };
            assert!(sample.lines().any(is_there), "{name} is missing");
        }
    }
}

#[test]
fn run_needs_a_configuration_unless_it_shows_one() {
    assert!(wye_err(&["run"]).contains("<CONFIG>"));
    assert!(wye_err(&["run", "--sample-config", "x.toml"]).contains("--sample-config"));
}

#[test]
fn check_refuses_what_a_run_would_refuse() {
    let path = std::env::temp_dir().join(format!("wye-run-check-{}", std::process::id()));
    let name = path.to_str().unwrap();
    let port = "[[port]]\nname = 'a'\nkind = 'tap'\n";
    for (text, message) in [
        (format!("[workers]\ncores = [1023]\n{port}"), "workers: cores: cannot run on core 1023: "),
        (format!("[workers]\ncores = [0, 0]\n{port}"), "workers: cores names core 0 twice"),
        (format!("{port}trunk = []\n"), "trunk = []"),
        (format!("control = '/{}'\n{port}", "x".repeat(107)), "control: no path for a Unix socket"),
        (port.replace("'a'", "'a b'"), "interface: \"a b\" is not an interface name"),
    ] {
        std::fs::write(&path, text).unwrap();
        for args in [&["run", "--check", name][..], &["run", name]] {
            let error = wye_err(args);
            assert!(error.contains(name) && error.contains(message), "{error}");
        }
    }
    std::fs::write(&path, format!("[workers]\ncores = [0]\n{port}")).unwrap();
    assert_eq!(wye_ok(&["run", "--check", name]), format!("{name}: 1 ports, 1 workers\n"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn check_refuses_flows_that_do_not_fit_the_ports() {
    let [config, flows] =
        ["config", "flows"].map(|name| std::env::temp_dir().join(format!("wye-run-{name}-{}", std::process::id())));
    let (config, flows) = (config.to_str().unwrap(), flows.to_str().unwrap());
    std::fs::write(config, format!("flows = {flows:?}\n[[port]]\nname = 'a'\nkind = 'tap'\n")).unwrap();
    let push = "tnl_push(tnl_port(9),header(size=2,type=112,raw(0102)),out_port(1)),1";
    for (text, message) in [
        ("in_port(1), actions:oops".to_owned(), ":1: column "),
        ("\nin_port(1), actions:2".to_owned(), ":2: port 2: the switch has none of this number"),
        ("in_port(9), actions:1".to_owned(), ":1: in_port(9): neither a port of the switch nor a tunnel"),
        (format!("in_port(1), actions:{push}"), ":1: "),
    ] {
        std::fs::write(flows, text).unwrap();
        for args in [&["run", "--check", config][..], &["run", config]] {
            let error = wye_err(args);
            assert!(error.contains(&format!("{flows}{message}")), "{error}");
        }
    }
    std::fs::write(flows, "tunnel 9 srv6 End.DT46\nin_port(1), actions:tnl_pop(9)\nin_port(9), actions:1\n").unwrap();
    assert_eq!(wye_ok(&["run", "--check", config]), format!("{config}: 1 ports, 1 workers\n"));
    std::fs::remove_file(flows).unwrap();
    assert!(wye_err(&["run", "--check", config]).contains(flows));
    std::fs::remove_file(config).unwrap();
}
