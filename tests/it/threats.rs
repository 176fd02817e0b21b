//! Who means harm, and what it comes to. `docs/security.md` lists all, with the tests beside other subjects.

mod names;
mod poison;
mod tenants;
