//! The amiable command: arguments in, exit status out.

use amiable::emulate;

fn main() {
    if emulate::init::is_init() {
        emulate::init::main()
    }
}
