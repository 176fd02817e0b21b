//! A policy component decides what becomes of each prompt: no HTTP, no WASI, no async runtime.
//!
//! ```sh
//! cargo run --release -p reflex-host --example policy -- COMPONENT PROMPT...
//! ```

use reflex_host::component::{Decision, GuestLimits, PolicyGuest, Question};
use reflex_host::grant::Grant;
use reflex_host::{Cache, Tenant};
use wasmtime::{Error, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let component = arguments
        .next()
        .ok_or_else(|| Error::msg("policy COMPONENT PROMPT..."))?;
    let component = std::fs::read(component)?;
    let tenant = Tenant::of_group("all");
    let cache = Cache::builder("").in_memory();
    let ctx = cache.granted(Grant::new("policy").for_tenant(tenant));
    let policy = PolicyGuest::new(&component, ctx, GuestLimits::default())?;

    for prompt in arguments {
        let said = match policy.decide(Question::prompt(tenant, &*prompt))? {
            Decision::Serve(entry) => {
                format!("served {}", String::from_utf8_lossy(&entry.payload()))
            }
            Decision::Ask(asking) => {
                // Here the model would be asked.
                let answer: String = prompt.chars().rev().collect();
                // That an answer is not kept is no reason not to give it.
                match policy.keep(&asking, &[], answer.as_bytes()) {
                    Ok(()) => format!("asked, kept {answer}"),
                    Err(error) => format!("asked, not kept {answer}: {error:?}"),
                }
            }
            Decision::Pass(reason) => format!("passed, {reason}"),
            Decision::Refuse { status, text } => format!("refused, {status} {text}"),
        };
        println!("{prompt}: {said}");
    }
    Ok(())
}
