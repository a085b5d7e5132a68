//go:build unix

package testserver

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that makes the network between a client and a server bad. It
// is safe for concurrent use. A fault holds for the connections that are open and
// those that come, until [Proxy.Heal].
type Proxy struct {
	listener net.Listener
	target   string

	mu      sync.Mutex
	latency time.Duration
	fault   fault
	changed chan struct{} // closed when latency or fault changes
	links   map[*link]struct{}
	closed  bool
	running sync.WaitGroup
}

type fault uint8

const (
	healthy   fault = iota
	blackHole       // nothing passes, either way
	halfOpen        // what the client sends passes, answers do not
)

// link is a pair of connections.
type link struct{ client, server net.Conn }

// StartProxy starts a proxy before the server at target, host and port. It ends with
// the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), links: make(map[*link]struct{})}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is the host and port that a client should connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetLatency delays everything by d, each way: a round trip takes 2d more.
func (p *Proxy) SetLatency(d time.Duration) {
	p.change(func() { p.latency = d })
}

// BlackHole lets nothing pass any more, and closes nothing: what a client meets when
// a switch or a host has died. New connections are accepted, and silent.
func (p *Proxy) BlackHole() {
	p.change(func() { p.fault = blackHole })
}

// HalfOpen lets what clients send pass, and holds back every answer: the server has
// done the work and the client does not know.
func (p *Proxy) HalfOpen() {
	p.change(func() { p.fault = halfOpen })
}

// Cut resets every open connection, on both sides. New ones work.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Heal ends BlackHole and HalfOpen. What was held back arrives late, as it does when
// a network recovers.
func (p *Proxy) Heal() {
	p.change(func() { p.fault = healthy })
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.Cut()
	p.running.Wait()
}

func (l *link) reset() {
	reset(l.client)
	reset(l.server)
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0) // a reset and not an orderly end
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		reset(client)
		return
	}
	l := &link{client, server}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.reset()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()

	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, func(f fault) bool { return f == blackHole }) })
	both.Go(func() { p.copy(client, server, func(f fault) bool { return f != healthy }) })
	both.Wait()

	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	_ = client.Close()
	_ = server.Close()
}

// packet is what was read at once, and when.
type packet struct {
	data []byte
	at   time.Time
}

// copy passes on what comes from src. Reading and writing are apart, so that latency
// delays and does not throttle.
func (p *Proxy) copy(dst, src net.Conn, held func(fault) bool) {
	packets := make(chan packet, 1024)
	p.running.Go(func() {
		defer close(packets)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if n > 0 {
				packets <- packet{buf[:n], time.Now()}
			}
			if err != nil {
				return
			}
		}
	})
	for k := range packets {
		if !p.pass(k.at, held) {
			break
		}
		if _, err := dst.Write(k.data); err != nil {
			break
		}
	}
	if p.pass(time.Now(), held) {
		_ = dst.(*net.TCPConn).CloseWrite() // an end is passed on like data
	}
	_ = src.(*net.TCPConn).CloseRead()
	for range packets { // until the reader sees that nobody reads
	}
}

// pass waits until what was read at that time may go on. It is false when the proxy
// has closed.
func (p *Proxy) pass(at time.Time, held func(fault) bool) bool {
	for {
		p.mu.Lock()
		wait, hold, closed, changed := time.Until(at.Add(p.latency)), held(p.fault), p.closed, p.changed
		p.mu.Unlock()
		switch {
		case closed:
			return false
		case hold:
			<-changed
		case wait > 0:
			select {
			case <-changed:
			case <-time.After(wait):
			}
		default:
			return true
		}
	}
}
