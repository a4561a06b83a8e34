//! docs/commands.md is generated from the command table: UPDATE_DOCS=1 cargo test --test it commands_document.

#[test]
fn the_document_shows_the_commands() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    let document = hotstandby::admin::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == document,
        "docs/commands.md is out of date: UPDATE_DOCS=1 cargo test --test it commands_document"
    );
}
