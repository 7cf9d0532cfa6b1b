//! An upstream and a php-fpm that fails, in every way that php-fpm is known to fail.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use longwire::metrics::upstream::RetryReason;
use longwire::upstream::{Class, Failure};

use crate::support::calls::{call, config, start};
use crate::support::php_fpm::{PhpFpm, Pool, eventually, kill};

/// A script that notes each run with its query in a file, then does `then`.
fn noting(fpm: &PhpFpm, then: &str) -> std::path::PathBuf {
    let runs = fpm.dir().join("runs");
    let note = format!(
        "file_put_contents('{}', $_SERVER['QUERY_STRING'] . \"\\n\", FILE_APPEND | LOCK_EX);\n{then}",
        runs.display()
    );
    fpm.script("noting.php", &note)
}

/// How often each query was run.
fn runs(dir: &Path) -> HashMap<String, u32> {
    let mut runs = HashMap::new();
    for query in fs::read_to_string(dir.join("runs")).unwrap_or_default().lines() {
        *runs.entry(query.to_owned()).or_default() += 1;
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_end_after_five_requests_lose_none_and_repeat_none() {
    let fpm = Pool::of(4).line("pm.max_requests = 5").start();
    let script = noting(&fpm, "echo $_SERVER['QUERY_STRING'];");
    let (upstream, metrics) = start(config(&[fpm.address()], 4));
    const REQUESTS: usize = 3000;
    let calls: Vec<_> = (0..REQUESTS).map(|i| (i, call(&script).query(i.to_string()).submit(&upstream))).collect();
    let mut lost = Vec::new();
    for (i, pending) in calls {
        let answer = pending.answer().await;
        match answer.outcome {
            longwire::upstream::Outcome::Done(_) => assert_eq!(answer.text(), i.to_string()),
            longwire::upstream::Outcome::Failed(failure) => lost.push((i, failure)),
        }
    }
    println!(
        "not taken {}, not sent {}, connects {}",
        metrics.retries(RetryReason::NotTaken),
        metrics.retries(RetryReason::NotSent),
        metrics.connects.get()
    );
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    let runs = runs(fpm.dir());
    assert_eq!(runs.len(), REQUESTS);
    assert!(runs.values().all(|count| *count == 1), "a request ran twice");
}
