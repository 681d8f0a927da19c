//! `ciab image logs`: here the log is the result, so it goes to stdout.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::args::{Format, LogsOptions};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use crate::pace::{Pace, Patience};
use crate::wait::{self, LogTail, Outage};

/// After so many polls without a line the build itself is asked whether it has ended.
const SILENT_POLLS: u32 = 5;

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &LogsOptions,
) -> Result<Exit, Failure> {
    // A wrong id is told at once, with the service's own words; and the first answer is tried for more than once.
    client.build(options.build_id, true).await?;
    if options.follow {
        let hints = || wait::goes_on(options.build_id);
        wait::unless_interrupted(hints, follow(client, printer, options)).await?;
    } else {
        wait::unless_interrupted(Vec::new, all_so_far(client, printer, options)).await?;
    }
    Ok(Exit::Done)
}

async fn all_so_far(client: &Client, printer: &mut Printer, options: &LogsOptions) -> Result<(), Failure> {
    let mut tail = LogTail::new(options.build_id);
    if printer.format() == Format::Table {
        return print_new(client, printer, &mut tail).await.map(|_| ());
    }
    let mut lines: Vec<Value> = Vec::new();
    tail.read(client, |line| lines.push(line.clone())).await?;
    let document = json!({"lines": lines, "next_offset": tail.offset(), "complete": tail.is_complete()});
    printer.result(&document, Value::to_string)
}

async fn follow(client: &Client, printer: &mut Printer, options: &LogsOptions) -> Result<(), Failure> {
    let build_id = options.build_id;
    let patience = Patience::for_build(None);
    let start = Instant::now();
    let mut tail = LogTail::new(build_id);
    let mut pace = Pace::new();
    let mut outage = Outage::new(start);
    let mut last_news = start;
    let mut silent_polls = 0;
    let mut ended = false;
    loop {
        let pause = match print_new(client, printer, &mut tail).await {
            Ok(news) => {
                outage.end(printer);
                if tail.is_complete() || printer.is_closed() {
                    return Ok(());
                }
                if news {
                    (silent_polls, last_news) = (0, Instant::now());
                    pace.news();
                } else {
                    silent_polls += 1;
                }
                // A log that was cut off with its runner may never be called complete; a build that has ended adds nothing.
                if silent_polls >= SILENT_POLLS {
                    if ended {
                        return Ok(());
                    }
                    ended = client.build(build_id, false).await.is_ok_and(|build| build.status.is_final());
                    silent_polls = 0;
                }
                pace.pause()
            }
            Err(Failure::Service(error)) if error.passes() => outage.note(printer, &error),
            Err(failure) => return Err(failure),
        };
        let since_start = |at: Instant| at.duration_since(start);
        if patience.is_over(start.elapsed(), since_start(outage.last_answer), since_start(last_news)) {
            let waited_secs = start.elapsed().as_secs();
            return Err(Failure::TooLong { build_id, waited_secs, last_status: "unknown".to_owned() });
        }
        sleep(pause).await;
    }
}

async fn print_new(client: &Client, printer: &mut Printer, tail: &mut LogTail) -> Result<bool, Failure> {
    let mut printed = Ok(());
    let read = tail
        .read(client, |line| {
            if printed.is_ok() {
                printed = printer.result_line(line);
            }
        })
        .await;
    printed?;
    Ok(read?)
}
