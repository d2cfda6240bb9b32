//! How the database is entered: TLS that is verified, passwords from where they may be.

use super::{answer, is_kept};
use crate::support::{Baton, Origin, PostgresServer, eventually};

#[test]
fn tls_is_verified_and_the_password_is_found() {
    let (server, port, roots) = PostgresServer::with_tls("sesame");
    let origin = Origin::start(answer);
    let url = format!("postgres://baton@127.0.0.1:{port}/postgres");
    let (tls, roots) = (
        "postgres.tls=on",
        format!("postgres.ca_file={}", roots.display()),
    );
    let file = server.directory().join("password");
    std::fs::write(&file, "sesame\n").unwrap();
    let password = format!("postgres.password_file={}", file.display());
    let flags = ["--cache", &url, "--set", tls, "--set", &roots];
    {
        let baton = Baton::reverse(
            origin.address(),
            &[&flags[..], &["--set", &password]].concat(),
        );
        is_kept(&baton, "/size/10");
        let clear = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name LIKE 'baton %' AND NOT ssl";
        assert_eq!(server.number(clear), 0);
        let secret = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                      WHERE application_name LIKE 'baton %' AND ssl";
        assert!(server.number(secret) > 0);
    }
    let to = format!("http://{}", origin.address());
    let start = ["reverse", "--to", &to, "--listen", "127.0.0.1:0"];
    {
        let baton = Baton::start_with(("PGPASSWORD", "sesame"), &[&start[..], &flags].concat());
        is_kept(&baton, "/size/10");
    }
    // systemd puts credentials into a directory.
    std::fs::write(server.directory().join("postgres-password"), "sesame").unwrap();
    let directory = server.directory().display().to_string();
    {
        let variable = ("CREDENTIALS_DIRECTORY", directory.as_str());
        let baton = Baton::start_with(variable, &[&start[..], &flags].concat());
        is_kept(&baton, "/size/10");
    }
    // Not verified by the system's certificates, and a wrong password: it goes on without.
    let wrong = [
        ([&flags[..4], &["--set", &password]].concat(), "certificate"),
        (
            [
                &flags[..4],
                &["--set", "postgres.tls=off", "--set", &password],
            ]
            .concat(),
            "no encryption",
        ),
        (flags.to_vec(), "password"),
    ];
    for (flags, why) in wrong {
        let baton = Baton::reverse(
            origin.address(),
            &[&flags[..], &["--workers", "1"]].concat(),
        );
        let response = baton.client().get("/size/10");
        assert!(response.status == 200 && !response.is_hit());
        eventually(&format!("it is said: {why}"), || {
            let log = baton.log("worker-0.log");
            (log.contains("the cache in PostgreSQL fails") && log.contains(why)).then_some(())
        });
    }
}
