//go:build unix

package testserver

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// PostgresDSN is the address of an empty database of the test's own: on the server
// that EVENKEEL_POSTGRES_DSN names, where it is dropped after the test, or on a
// private one.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv("EVENKEEL_POSTGRES_DSN")
	if dsn == "" {
		return StartPostgres(t, PostgresOptions{}).DSN()
	}
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		t.Fatalf("EVENKEEL_POSTGRES_DSN is %q, expected postgres://user:password@host/database", dsn)
	}
	psql, ok := program("psql", "/usr/lib/postgresql/*/bin")
	if !ok {
		missing(t, "psql", "apt-get install postgresql-client")
	}
	admin := func(sql string) { run(t, nil, "/", psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, dsn) }
	name := ownName()
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// mysqlDSN is user:password@tcp(host:port)/database?parameters, as
// go-sql-driver/mysql takes it.
var mysqlDSN = regexp.MustCompile(`^([^:@]*)(?::([^@]*))?@tcp\(([^:)]*)(?::([0-9]+))?\)/([^?]*)(\?.*)?$`)

// MySQLDSN is the address of an empty database of the test's own: on the server that
// EVENKEEL_MYSQL_DSN names, where it is dropped after the test, or on a private
// MariaDB.
func MySQLDSN(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv("EVENKEEL_MYSQL_DSN")
	if dsn == "" {
		return StartMariaDB(t, MariaDBOptions{}).DSN()
	}
	m := mysqlDSN.FindStringSubmatch(dsn)
	if m == nil {
		t.Fatalf("EVENKEEL_MYSQL_DSN is %q, expected user:password@tcp(host:port)/database", dsn)
	}
	user, password, host, port, params := m[1], m[2], m[3], m[4], m[6]
	if port == "" {
		port = "3306"
	}
	client, ok := program("mariadb")
	if !ok {
		client, ok = program("mysql")
	}
	if !ok {
		missing(t, "a client of MySQL", "apt-get install mariadb-client")
	}
	admin := func(sql string) {
		run(t, nil, "/", client, "--no-defaults", "--protocol=tcp", "--host="+host, "--port="+port,
			"--user="+user, "--password="+password, "--execute="+sql)
	}
	name := ownName()
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name) })
	if password != "" {
		user += ":" + password
	}
	return fmt.Sprintf("%s@tcp(%s:%s)/%s%s", user, host, port, name, params)
}

// RedisAddr is the host and port of a Redis server and the number of an empty
// database of the test's own there: on the server that EVENKEEL_REDIS_ADDR names,
// where the database is emptied after the test, or on a private one.
func RedisAddr(t testing.TB) (address string, db int) {
	t.Helper()
	address = os.Getenv("EVENKEEL_REDIS_ADDR")
	if address == "" {
		return StartRedis(t).Addr(), 0
	}
	// Tests of several processes claim numbers 1 to 15 by a key in database 0. It
	// expires, for the sake of those that were killed.
	for db := 1; db <= 15; db++ {
		key := "evenkeel:testserver:db:" + strconv.Itoa(db)
		reply, err := redisDo(address, "SET", key, "1", "NX", "EX", "600")
		if err != nil {
			t.Fatalf("EVENKEEL_REDIS_ADDR: %v", err)
		}
		if reply != "OK" {
			continue
		}
		empty := func() {
			if _, err := redisDoIn(address, db, "FLUSHDB"); err != nil {
				t.Errorf("EVENKEEL_REDIS_ADDR: %v", err)
			}
		}
		empty()
		t.Cleanup(func() {
			empty()
			if _, err := redisDo(address, "DEL", key); err != nil {
				t.Errorf("EVENKEEL_REDIS_ADDR: %v", err)
			}
		})
		return address, db
	}
	t.Fatalf("EVENKEEL_REDIS_ADDR: the databases 1 to 15 of %s are all in use by other tests", address)
	return "", 0
}

// ownName is a name for a database that no other test has.
func ownName() string { return "evenkeel_" + strings.ToLower(rand.Text()[:16]) }
