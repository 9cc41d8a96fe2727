//! Writes the rows' frames into the fuzzers' corpus: `cargo xtask fuzz seed`.

fn main() -> std::io::Result<()> {
    let count = gateway_tests::fuzzing::corpus::write_seeds()?;
    println!("{count} seeds from the rows in {}", gateway_tests::fuzzing::corpus::folder().display());
    Ok(())
}
