//! The longwire command: parse, call, and one line for the operator when it fails.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use longwire::commands::cli::{Cli, Command, ConfigArgs};
use longwire::commands::{bench, check, connect, dev, health};
use longwire::config::model::Config;
use longwire::node::Extras;
use longwire::{config, logging, serve, static_glibc};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options that jemalloc reads when it starts (jemalloc(3), "Tuning"). A background thread gives freed memory back within a second,
/// also while nothing is allocated any more, so that no memory stays behind after a burst.
#[cfg(feature = "jemalloc")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_OPTIONS: AllocatorOptions =
    AllocatorOptions(c"narenas:2,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr());

#[cfg(feature = "jemalloc")]
#[repr(transparent)]
struct AllocatorOptions(*const std::ffi::c_char);

// SAFETY: it points to a literal, which is never written to.
#[cfg(feature = "jemalloc")]
unsafe impl Sync for AllocatorOptions {}

fn main() -> ExitCode {
    static_glibc::use_only_built_in_names();
    match run(Cli::parse().command) {
        Ok(status) => status,
        Err(error) => {
            logging::tell(format_args!("longwire: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => run_node(&args),
        Command::Check(args) => Ok(check::run(&config::find::file(args.config.as_deref())?)),
        Command::Health(args) => health::run(&args).context("cannot start the runtime"),
        Command::Dev(args) => Ok(dev::run(&args)?),
        Command::Connect(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            Ok(runtime.block_on(connect::run(&args))?)
        }
        Command::Bench(command) => Ok(bench::run(&command)?),
        Command::Defaults => {
            // `longwire defaults | head` closes the pipe early; that is no failure.
            let _closed_early = std::io::stdout().write_all(config::document::defaults().as_bytes());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_node(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let file = config::find::file(args.config.as_deref())?;
    let (config, warnings) = match Config::load(&file) {
        Ok(loaded) => loaded,
        Err(errors) => {
            logging::tell(format_args!("{errors}\n"));
            return Ok(ExitCode::FAILURE);
        }
    };
    let log = logging::init(&config.log);
    tracing::info!(file = %file.display(), "configuration read");
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(serve::run(&config, &Extras::default(), serve::Hangup::Reload, |_| {}).unwrap_or_else(|error| {
        log.say(format_args!("longwire: {error}"));
        ExitCode::FAILURE
    }))
}
