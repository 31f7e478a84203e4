//! The server binary. Its commands come with the wiring of the roles.

fn main() {
    println!("holdfast {}", env!("CARGO_PKG_VERSION"));
}
