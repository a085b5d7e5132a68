//go:build unix

package testserver

import (
	"net"
	"os"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS is an embedded NATS server with JetStream. It is part of the test process and
// ends with it.
type NATS struct {
	server  *server.Server
	options *server.Options
}

// StartNATS starts a server, in some 30 ms.
func StartNATS(t testing.TB) *NATS {
	t.Helper()
	n := &NATS{options: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tempDir(t, nil), NoLog: true, NoSigs: true,
	}}
	n.Restart(t)
	n.options.Port = n.server.Addr().(*net.TCPAddr).Port
	t.Cleanup(n.Stop) // before the folder is removed
	return n
}

// URL is where clients connect.
func (n *NATS) URL() string { return n.server.ClientURL() }

// Stop ends the server; what JetStream stored stays for Restart.
func (n *NATS) Stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

// Restart starts the server again after Stop, on the same port and store.
func (n *NATS) Restart(t testing.TB) {
	t.Helper()
	s, err := server.NewServer(n.options)
	if err != nil {
		t.Fatalf("nats: %v", err)
	}
	n.server = s
	go s.Start()
	if !s.ReadyForConnections(readyWithin) {
		t.Fatalf("nats: not ready after %v", readyWithin)
	}
}

// NATSURL is the URL of the server that EVENKEEL_NATS_URL names, or of one of the
// test's own. On a shared server the names of streams are the test's business.
func NATSURL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("EVENKEEL_NATS_URL"); url != "" {
		return url
	}
	return StartNATS(t).URL()
}
