//! Hands commit and date of the build on to the crate, where `option_env!` reads them.

fn main() {
    for name in ["CHORUS_BUILD_COMMIT", "CHORUS_BUILD_DATE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
}
