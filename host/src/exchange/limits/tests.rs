//! Rates, fills, and who is bounded by which.

use super::*;

fn tenant(number: u64) -> [u8; 32] {
    let mut tenant = [1; 32];
    tenant[..8].copy_from_slice(&number.to_le_bytes());
    tenant
}

fn rate(per_second: f64, burst: u32) -> Most {
    Most {
        rate: Some(Rate { per_second, burst }),
        fills: None,
    }
}

fn limits(rules: Rules) -> Arc<TenantLimits> {
    let limits = Arc::<TenantLimits>::default();
    limits.set(rules);
    limits
}

/// How many of `asked` requests the cache takes, each this long after the one before.
fn taken(limits: &TenantLimits, tenant: &[u8; 32], asked: u32, at: &mut Instant, gap: u64) -> u32 {
    let taken = (0..asked).filter(|_| {
        *at += Duration::from_millis(gap);
        limits.ask(tenant, *at).is_ok()
    });
    taken.count() as u32
}

#[test]
fn a_burst_is_taken_at_once_and_then_the_rate() {
    let limits = limits(Rules {
        each: rate(10.0, 5),
        ..Rules::default()
    });
    let mut at = limits.start;
    let one = tenant(1);
    assert_eq!(taken(&limits, &one, 100, &mut at, 0), 5);
    // A tenth of what is asked, as it is asked ten times as fast.
    assert_eq!(taken(&limits, &one, 1000, &mut at, 10), 100);
    // No pause gives more than the burst.
    at += Duration::from_secs(3600);
    assert_eq!(taken(&limits, &one, 100, &mut at, 0), 5);
    // Another tenant has its own.
    assert_eq!(taken(&limits, &tenant(2), 100, &mut at, 0), 5);
    let Err(Over::Rate(wait, OverRate::Pass)) = limits.ask(&one, at) else {
        panic!("taken")
    };
    assert_eq!(wait, Duration::from_millis(100));
    assert!(limits.ask(&one, at + wait).is_ok());
    assert_eq!(limits.counts().rate_refused, 0);
    assert_eq!(limits.counts().rate_passed, 95 + 900 + 95 + 95 + 1);
}

#[test]
fn a_tenant_may_have_a_limit_of_its_own_and_none() {
    let limits = limits(Rules {
        each: rate(1.0, 1),
        of: [(tenant(1), rate(1.0, 50)), (tenant(2), Most::default())].into(),
        over_rate: OverRate::Refuse,
        apart: None,
    });
    let mut at = limits.start;
    for (number, expected) in [(1, 50), (2, 100), (3, 1)] {
        assert_eq!(
            taken(&limits, &tenant(number), 100, &mut at, 0),
            expected,
            "{number}"
        );
    }
    assert_eq!(limits.counts().rate_refused, 50 + 99);
    // Other limits hold at once, also for what was asked before.
    limits.set(Rules::default());
    assert_eq!(taken(&limits, &tenant(3), 100, &mut at, 0), 100);
}

/// A client that shows another credential with each request.
#[test]
fn tenants_without_a_name_have_one_rate_together() {
    let limits = limits(Rules {
        each: rate(1.0, 10),
        apart: Some([tenant(1)].into()),
        ..Rules::default()
    });
    let at = limits.start;
    let all = (100..1100).filter(|number| limits.ask(&tenant(*number), at).is_ok());
    assert_eq!(all.count(), 10);
    assert!(limits.ask(&tenant(1), at).is_ok());
}

#[test]
fn rates_are_bounded_and_forgotten_when_they_are_unused() {
    let limits = limits(Rules {
        each: rate(1.0, 2),
        ..Rules::default()
    });
    let at = limits.start;
    let full = RATES_MAX as u64;
    assert!((0..full).all(|number| limits.ask(&tenant(number), at).is_ok()));
    // All further ones have one rate.
    let more = (full..full + 5000).filter(|number| limits.ask(&tenant(*number), at).is_ok());
    assert_eq!(more.count(), 2);
    assert_eq!(limits.lock().rates.len(), RATES_MAX);
    let later = at + Duration::from_secs(2);
    let more = (full..full + 5000).filter(|number| limits.ask(&tenant(*number), later).is_ok());
    assert!(more.count() > 3900);
    assert!(limits.lock().rates.len() <= 5000);
}

#[test]
fn fills_are_counted_until_they_end() {
    let most = |fills| Most {
        rate: None,
        fills: Some(fills),
    };
    let limits = limits(Rules {
        each: most(2),
        of: [(tenant(7), most(3))].into(),
        apart: None,
        over_rate: OverRate::Refuse,
    });
    let begin = |number| limits.begin(&tenant(number));
    let first = begin(1).expect("a fill");
    let second = begin(1).expect("a fill");
    assert!(begin(1).is_none());
    let others = [7, 7, 7].map(|number| begin(number).expect("a fill"));
    assert!(begin(7).is_none());
    drop(first);
    drop(begin(1).expect("a fill"));
    drop((second, others));
    assert!(limits.lock().fills.is_empty());
    assert_eq!(limits.counts().fills_passed, 2);
    limits.set(Rules {
        each: most(2),
        apart: Some(HashSet::new()),
        ..Rules::default()
    });
    let held = [begin(1), begin(2)];
    assert!(held.iter().all(Option::is_some) && begin(3).is_none());
    drop(held);
    assert!(begin(3).is_some());
}

#[test]
fn rates_of_any_size_are_kept_without_a_fault() {
    for per_second in [1e-300, 1e-9, 0.5, 1e6, 1e300] {
        let most = rate(per_second, u32::MAX);
        let limits = limits(Rules {
            each: most,
            ..Rules::default()
        });
        let at = limits.start;
        assert!(limits.ask(&tenant(1), at).is_ok());
        let _ = limits.ask(&tenant(1), at + Duration::from_secs(u32::MAX.into()));
    }
}
