package httpcoalesce_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// A browser is a client in the same process: it keeps what it is sent, and can be made
// to read slowly. Its methods may be called while it is served.
type browser struct {
	mu       sync.Mutex
	header   http.Header // the handler's view
	sent     http.Header // as of WriteHeader
	status   int
	body     bytes.Buffer
	flushed  []int // length of the body at each Flush
	done     bool
	panicked any

	// read is received from before each Write, if it is not nil.
	read chan struct{}
	// broken makes every Write fail.
	broken bool
	leave  context.CancelFunc
}

func (b *browser) Header() http.Header { return b.header }

func (b *browser) WriteHeader(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status == 0 {
		b.status, b.sent = status, b.header.Clone()
	}
}

func (b *browser) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	if b.read != nil {
		<-b.read
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		return 0, errors.New("connection reset")
	}
	return b.body.Write(p)
}

func (b *browser) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushed = append(b.flushed, b.body.Len())
}

func (b *browser) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.body.String()
}

// state is "waiting", "streaming", "done" or "aborted".
func (b *browser) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.panicked != nil:
		return "aborted"
	case b.done:
		return "done"
	case b.status != 0:
		return "streaming"
	}
	return "waiting"
}

// ask serves a request on a goroutine.
func ask(h http.Handler, r *http.Request) *browser {
	b := &browser{}
	return b.ask(h, r)
}

func (b *browser) ask(h http.Handler, r *http.Request) *browser {
	b.header = http.Header{}
	ctx, cancel := context.WithCancel(r.Context())
	b.leave = cancel
	r = r.WithContext(ctx)
	go func() {
		defer cancel()
		defer func() {
			v := recover()
			b.mu.Lock()
			defer b.mu.Unlock()
			b.done, b.panicked = true, v
		}()
		h.ServeHTTP(b, r)
	}()
	return b
}

func get(url string, fields ...string) *http.Request { return request("GET", url, fields...) }

// request has fields of the form "Name: value".
func request(method, url string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, url, nil)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		r.Header.Add(name, strings.TrimSpace(value))
	}
	return r
}

// A stage is a handler that waits in each execution until it is told to go on.
type stage struct {
	*httpcoalesce.Handler
	mu   sync.Mutex
	runs []*run
}

// A run is one execution.
type run struct {
	w    http.ResponseWriter
	r    *http.Request
	do   chan func(http.ResponseWriter, *http.Request)
	over chan struct{}
}

// play lets the execution do f and waits until it has, or until everything waits.
func (x *run) play(f func(w http.ResponseWriter, r *http.Request)) {
	x.do <- f
	synctest.Wait()
}

// end lets the execution return.
func (x *run) end() {
	close(x.do)
	synctest.Wait()
}

func newStage(t require.TestingT, o httpcoalesce.Options) *stage {
	s := &stage{}
	h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &run{w, r, make(chan func(http.ResponseWriter, *http.Request)), make(chan struct{})}
		defer close(x.over)
		s.mu.Lock()
		s.runs = append(s.runs, x)
		s.mu.Unlock()
		for f := range x.do {
			f(w, r)
		}
	}), o)
	require.NoError(t, err)
	s.Handler = h
	return s
}

// ask serves a request and waits until nothing moves.
func (s *stage) ask(r *http.Request) *browser {
	b := ask(s, r)
	synctest.Wait()
	return b
}

// run returns the i-th execution.
func (s *stage) run(i int) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[i]
}

func (s *stage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.runs)
}

// endAll lets everything end that has begun.
func (s *stage) endAll() {
	for i := 0; i < s.count(); i++ {
		select {
		case <-s.run(i).over:
		default:
			s.run(i).end()
		}
	}
}

func write(body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

func flush(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }
