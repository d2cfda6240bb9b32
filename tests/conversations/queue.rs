//! The queue in front of full workers: order, waiting, and what does not fit.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::origin::ok;
use crate::support::{Baton, Client, Gate, Origin, eventually};

/// One worker that takes one request at a time, behind two listeners of which the second goes first.
struct Narrow {
    baton: Baton,
    origin: Origin,
    gate: Gate,
    _directory: tempfile::TempDir,
}

impl Narrow {
    fn new(queue: &str) -> Narrow {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |request| {
            held.wait();
            ok("", &request.target)
        });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.conf");
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"reverse\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"reverse\"\npriority = 1\n\
             [reverse]\nto = \"http://{}\"\n[worker]\nmax_active = 1\n[queue]\n{queue}\n",
            origin.address()
        );
        std::fs::write(&file, text).unwrap();
        let baton = Baton::start(&["serve", "--workers", "1", "-c", file.to_str().unwrap()]);
        Narrow {
            baton,
            origin,
            gate,
            _directory: directory,
        }
    }

    /// A client whose request occupies the worker.
    fn occupy(&self) -> Client {
        let client = self.ask(0, "/first");
        eventually("it is with the origin", || {
            (self.origin.count("/first") == 1).then_some(())
        });
        self.baton.wait_until_served(&client);
        client
    }

    fn ask(&self, listener: usize, path: &str) -> Client {
        let mut client = Client::connect(self.baton.addresses()[listener]);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        client
    }

    /// A client whose request waits in the master.
    fn wait_in_line(&self, listener: usize, path: &str) -> Client {
        let client = self.ask(listener, path);
        self.baton.wait_until_parked(&client);
        client
    }

    /// Lets everything through and says in which order the origin saw it.
    fn order(&self, clients: &mut [Client]) -> Vec<String> {
        self.gate.open();
        for client in clients {
            assert_eq!(client.response().status, 200);
        }
        let requests = self.origin.requests();
        requests.into_iter().map(|request| request.target).collect()
    }
}

#[test]
fn a_full_worker_lets_the_rest_wait_and_the_log_says_how_long() {
    let narrow = Narrow::new("capacity = 10");
    let first = narrow.occupy();
    let second = narrow.wait_in_line(0, "/second");
    // Long enough to show, and for an impatient master to be wrong.
    let began = Instant::now();
    eventually("a while", || {
        (began.elapsed() > Duration::from_millis(100)).then_some(())
    });
    assert_eq!(narrow.origin.requests().len(), 1, "one at a time");
    narrow.order(&mut [first, second]);
    let lines = narrow.baton.access_lines(2);
    let queued = |path: &str| -> f64 {
        let line = lines.iter().find(|line| line.contains(path)).unwrap();
        let (_, rest) = line
            .split_once("queued=")
            .unwrap_or_else(|| panic!("{line}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(queued("/second") >= 0.1, "{lines:?}");
    assert!(queued("/first") < 0.1, "{lines:?}");
}

#[test]
fn a_worker_that_takes_one_at_a_time_never_has_two() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (current, highest) = (now.clone(), most.clone());
    let origin = Origin::start(move |_| {
        highest.fetch_max(1 + current.fetch_add(1, SeqCst), SeqCst);
        std::thread::park_timeout(Duration::from_millis(2));
        current.fetch_sub(1, SeqCst);
        ok("Cache-Control: no-store\r\n", "")
    });
    let flags = ["--workers", "1", "--set", "worker.max_active=1"];
    let baton = Baton::reverse(origin.address(), &flags);
    let mut clients: Vec<Client> = (0..60).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(most.load(SeqCst), 1);
}

#[test]
fn the_listener_with_priority_goes_first() {
    let narrow = Narrow::new("ageing = \"1h\"");
    let mut clients = vec![narrow.occupy()];
    for (listener, path) in [(0, "/low-1"), (0, "/low-2"), (1, "/high-1"), (1, "/high-2")] {
        clients.push(narrow.wait_in_line(listener, path));
    }
    assert_eq!(
        narrow.order(&mut clients),
        ["/first", "/high-1", "/high-2", "/low-1", "/low-2"]
    );
}

#[test]
fn age_catches_up_with_priority() {
    let narrow = Narrow::new("ageing = \"1ms\"");
    let mut clients = vec![narrow.occupy(), narrow.wait_in_line(0, "/low")];
    let began = Instant::now();
    eventually("it has aged", || {
        (began.elapsed() > Duration::from_millis(20)).then_some(())
    });
    clients.push(narrow.wait_in_line(1, "/high"));
    assert_eq!(narrow.order(&mut clients), ["/first", "/low", "/high"]);
}

#[test]
fn what_does_not_fit_is_told_to_come_again() {
    let narrow = Narrow::new("capacity = 2\nageing = \"1h\"");
    let mut clients = vec![
        narrow.occupy(),
        narrow.wait_in_line(0, "/1"),
        narrow.wait_in_line(0, "/2"),
    ];
    let mut refused = narrow.ask(0, "/3");
    let response = refused.response();
    assert_eq!(response.status, 503);
    assert!(response.field("retry-after").is_some(), "{}", response.head);
    assert!(response.has("connection", "close") && refused.is_closed());
    // A more important one takes the place of the least important that waits.
    let important = narrow.wait_in_line(1, "/important");
    assert_eq!(clients.pop().unwrap().response().status, 503);
    clients.push(important);
    assert_eq!(narrow.order(&mut clients), ["/first", "/important", "/1"]);
}

#[test]
fn a_refused_upload_reads_its_answer() {
    let narrow = Narrow::new("capacity = 1");
    let mut clients = vec![narrow.occupy(), narrow.wait_in_line(0, "/1")];
    let mut client = Client::connect(narrow.baton.address());
    client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10000\r\n\r\n");
    client.send_anyway(vec![b'x'; 10_000]);
    assert_eq!(client.response().status, 503);
    narrow.order(&mut clients);
}

#[test]
fn a_burst_of_four_hundred_is_served_without_a_refusal() {
    let origin = Origin::start(|_| ok("", "served"));
    let baton = Baton::reverse(origin.address(), &[]);
    let mut clients: Vec<Client> = (0..400).map(|_| baton.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
}
