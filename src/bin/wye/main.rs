//! The `wye` command-line tool.

mod bench;

fn main() {
    let list = std::env::args().any(|a| a == "--list");
    if list {
        return bench::CASES.iter().for_each(|c| println!("{:24} {}", c.name, c.about));
    }
    let pattern = std::env::args().nth(1).unwrap_or_default();
    for case in bench::CASES.iter().filter(|c| c.name.contains(&pattern)) {
        let figure = case.run(std::time::Duration::from_millis(1200));
        println!("{}", serde_json::to_string(&figure).unwrap_or_default());
    }
}
