// Package testserver gives tests real servers: private, throw-away ones from the
// programs that are installed on the machine, each on a random port of the loopback
// interface with a data folder of its own.
//
//	pg := testserver.StartPostgres(t, testserver.PostgresOptions{})
//	db, err := sql.Open("pgx", pg.DSN())
//	...
//	pg.Kill()     // a crash, kill -9
//	pg.Restart(t) // the same port and data
//
// A server is gone when the test has ended, and also when the test process ends in
// any other way, SIGKILL included: a helper process watches it and then ends the
// servers and removes their folders.
//
// Where a program is missing the test skips and says which package to install.
// With EVENKEEL_REQUIRE=1 it fails instead, so that a gate cannot pass by skipping.
//
// To use a server that runs already, set a variable and use the function that
// returns an address; each test gets a database of its own there:
//
//	EVENKEEL_POSTGRES_DSN=postgres://user:password@host/db   PostgresDSN
//	EVENKEEL_MYSQL_DSN=user:password@tcp(host:3306)/db       MySQLDSN
//	EVENKEEL_REDIS_ADDR=host:6379                            RedisAddr
//	EVENKEEL_NATS_URL=nats://host:4222                       NATSURL
//	EVENKEEL_AMQP_URL=amqp://user:password@host:5672/        AMQPURL
//
// A [Proxy] between a client and a server makes the network slow, cut, silent or
// half open.
//
// The package is for Unix. Apart from the embedded NATS server it uses the standard
// library alone, so that a test may bring any driver.
package testserver
