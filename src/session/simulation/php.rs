//! The php-fpm of a simulation: it gets requests, and its scripts print, end and die when the session lets them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use super::{Chance, Woken, World, split_mix};
use crate::session::Answer;
use crate::upstream::{Class, Failure, Outcome, Request, Responder, Timing};

/// The queue of requests for php-fpm.
#[derive(Clone, Default)]
pub(in crate::session) struct Desk(pub(super) Arc<Mutex<Vec<Request<Answer>>>>);

impl Desk {
    pub(in crate::session) fn take(&self, request: Request<Answer>) {
        self.0.lock().unwrap().push(request);
    }
}

/// One step of a script.
pub(super) enum Act {
    Print(Vec<u8>),
    End,
    /// The connection ends early.
    Die,
}

/// A request that PHP runs.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) class: Class,
    pub(super) answer: Answer,
    pub(super) acts: VecDeque<Act>,
    pub(super) woken: Arc<Woken>,
    pub(super) answered: bool,
    pub(super) holding: bool,
}

impl World {
    pub(super) fn take_requests(&self) {
        for request in std::mem::take(&mut *self.desk.0.lock().unwrap()) {
            let number = self.jobs.borrow().len() as u64;
            let acts = match request.class {
                Class::Message => {
                    let is_post = matches!(request.responder, Answer::Http(_));
                    match is_post {
                        true => self.posted.set(self.posted.get() + 1),
                        false => self.handled.set(self.handled.get() + 1),
                    }
                    self.script(&request.body, is_post)
                }
                Class::Connect => match split_mix(self.content ^ 3) % 8 {
                    0 => {
                        self.client.borrow_mut().possible.push(b"no".to_vec());
                        vec![Act::Print(b"Status: 403\r\n\r\nno".to_vec()), Act::End]
                    }
                    1 => vec![Act::Die],
                    _ => vec![Act::Print(b"X: y\r\n\r\n".to_vec()), Act::End],
                },
                Class::Close => {
                    self.told_close.set(self.told_close.get() + 1);
                    let jobs = self.jobs.borrow();
                    if jobs.iter().flatten().any(|job| job.class == Class::Connect) {
                        self.fail("PHP is told of the end while it is told of the beginning".into());
                    }
                    vec![Act::Print(b"X: y\r\n\r\n".to_vec()), Act::End]
                }
                Class::Presence => unreachable!("no app wants that"),
            };
            if request.class != Class::Close && self.close_began.get() {
                self.fail(format!("{:?} after the close event", request.class));
            }
            self.close_began.set(self.close_began.get() || request.class == Class::Close);
            self.say(|| format!("PHP is asked: job {number}, {:?}, {} acts", request.class, acts.len()));
            self.jobs.borrow_mut().push(Some(Job {
                number,
                class: request.class,
                answer: request.responder,
                acts: acts.into(),
                woken: Woken::new(),
                answered: false,
                holding: false,
            }));
        }
    }

    /// The steps of a script. They depend only on the message.
    pub(super) fn script(&self, body: &[u8], is_post: bool) -> Vec<Act> {
        let text = String::from_utf8_lossy(body).into_owned();
        let number: u64 = text.trim_start_matches('m').parse().expect("all messages are so");
        let chance = Chance::of(self.content ^ number.wrapping_mul(0x1_0000_0001));
        let len = [3, 60, 500, 2500, 9000][chance.below(5)];
        let reply: Vec<u8> =
            format!("<r{number}:").bytes().chain(std::iter::repeat_n(b'r', len)).chain(*b">").collect();
        let expect = |body: Vec<u8>| {
            if !is_post {
                *self.client.borrow_mut().expected.entry(body).or_default() += 1;
            }
        };
        let pieces = |head: &str, reply: &[u8]| {
            let mut acts = vec![Act::Print(head.as_bytes().to_vec())];
            let size = reply.len().div_ceil(1 + chance.below(6));
            acts.extend(reply.chunks(size.max(1)).map(|piece| Act::Print(piece.to_vec())));
            acts
        };
        let announced = format!("Content-Length: {}\r\n\r\n", reply.len());
        match chance.below(12) {
            0..=3 => {
                let mut acts = pieces("X: y\r\n\r\n", &reply);
                acts.push(Act::End);
                expect(reply);
                acts
            }
            4..=6 => {
                let mut acts = pieces(&announced, &reply);
                acts.push(Act::End);
                expect(reply);
                acts
            }
            7 => {
                let mut all = Vec::new();
                for line in 0..1 + chance.below(4) {
                    let line: Vec<u8> = format!("<l{number}.{line}:{}>", "l".repeat(len / 3)).into_bytes();
                    all.extend_from_slice(&line);
                    all.push(b'\n');
                    expect(line);
                }
                let mut acts = pieces("Longwire-Stream: lines\r\n\r\n", &all);
                acts.push(Act::End);
                acts
            }
            8 => {
                let mut acts = pieces(if chance.percent(50) { &announced } else { "X: y\r\n\r\n" }, &reply);
                self.client.borrow_mut().possible.push(reply);
                acts.truncate(1 + chance.below(acts.len()));
                acts.push(Act::Die);
                acts
            }
            9 => vec![Act::Print(b"X: y\r\n\r\n".to_vec()), Act::End],
            10 => vec![Act::Print(b"Status: 500\r\n\r\noh".to_vec()), Act::End],
            _ => {
                let mut acts = pieces("Longwire-Close: 4001 enough\r\n\r\n", &reply);
                acts.push(Act::End);
                expect(reply);
                acts
            }
        }
    }

    /// Runs one step of a job, as its connection to php-fpm would. Returns false if the job cannot continue now.
    pub(super) fn step_job(&self, at: usize) -> bool {
        let Some(mut job) = self.jobs.borrow_mut().get_mut(at).and_then(Option::take) else { return false };
        if !job.woken.take() {
            self.jobs.borrow_mut()[at] = Some(job);
            return false;
        }
        let waker = Waker::from(job.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut outcome = None;
        if !job.answer.is_waited_for() && job.answer.poll_cancelled(&mut cx).is_ready() {
            outcome = Some(Outcome::Failed(Failure::Cancelled { sent: true }));
        } else if job.answer.poll_room(&mut cx).is_ready() {
            match job.acts.pop_front() {
                Some(Act::Print(bytes)) => {
                    job.answer.stdout(&bytes);
                    job.answered = true;
                    job.holding = true;
                    job.woken.0.store(true, Ordering::Relaxed);
                    // Output that comes in one read with the end is not released before the end.
                    if !matches!(job.acts.front(), Some(Act::End)) || self.percent(50) {
                        job.answer.pause();
                        job.holding = false;
                    }
                }
                Some(Act::Die) => {
                    outcome = Some(Outcome::Failed(Failure::BackendClosed { answered: job.answered }));
                }
                Some(Act::End) | None => outcome = Some(Outcome::Done(Timing::default())),
            }
        }
        match outcome {
            Some(outcome) => {
                self.say(|| format!("job {} ends: {outcome:?}", job.number));
                job.answer.end(outcome);
            }
            None => {
                let has_acted = job.woken.is_set();
                self.jobs.borrow_mut()[at] = Some(job);
                return has_acted;
            }
        }
        true
    }

    pub(super) fn running(&self) -> Vec<usize> {
        let jobs = self.jobs.borrow();
        (0..jobs.len()).filter(|at| jobs[*at].is_some()).collect()
    }

    pub(super) fn step_any_job(&self) {
        let running = self.running();
        if !running.is_empty() {
            let at = running[self.below(running.len())];
            self.step_job(at);
        }
    }
}
