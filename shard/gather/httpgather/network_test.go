package httpgather_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard/gather/httpgather"
)

// overNetwork runs a test over TCP: HTTP/1.1 and HTTP/2, NDJSON and an array.
func overNetwork(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, get func(context.Context) *http.Response)) {
	for _, protocol := range []int{1, 2} {
		for _, accept := range []string{ndjson, array} {
			t.Run(fmt.Sprintf("http=%d/%s", protocol, accept), func(t *testing.T) {
				server := httptest.NewUnstartedServer(handler)
				server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the panics
				server.EnableHTTP2 = protocol == 2
				server.StartTLS()
				defer server.Close()
				test(t, func(ctx context.Context) *http.Response {
					r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
					require.NoError(t, err)
					r.Header.Set("Accept", accept)
					res, err := server.Client().Do(r)
					require.NoError(t, err)
					require.Equal(t, protocol, res.ProtoMajor)
					require.Equal(t, accept, res.Header.Get("Content-Type"))
					require.Equal(t, int64(-1), res.ContentLength)
					return res
				})
			})
		}
	}
}

// Each row arrives while the query waits for the client to say so: nothing sits unsent,
// nor unread.
func TestRowsArriveWhileTheQueryWaits(t *testing.T) {
	t.Parallel()
	arrived := make(chan int)
	overNetwork(t, func(w http.ResponseWriter, r *http.Request) {
		_ = httpgather.Serve(w, r, func(ctx context.Context) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				for id := range 5 {
					if !yield(row{ID: id}, nil) {
						return
					}
					select {
					case <-arrived:
					case <-ctx.Done():
						yield(row{}, ctx.Err())
						return
					}
				}
			}
		}, httpgather.Options[row]{})
	}, func(t *testing.T, get func(context.Context) *http.Response) {
		n := 0
		for r, err := range httpgather.Read[row](get(t.Context()), httpgather.ReadOptions{}) {
			require.NoError(t, err)
			require.Equal(t, n, r.ID)
			n++
			arrived <- n
		}
		require.Equal(t, 5, n)
	})
}

func TestTheQueryEndsWhenTheClientHasGone(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2) // a test that fails must not keep the server waiting
	overNetwork(t, func(w http.ResponseWriter, r *http.Request) {
		ended <- httpgather.Serve(w, r, func(ctx context.Context) iter.Seq2[row, error] {
			return func(yield func(row, error) bool) {
				yield(row{ID: 1}, nil)
				<-ctx.Done()
				yield(row{}, ctx.Err())
			}
		}, httpgather.Options[row]{})
	}, func(t *testing.T, get func(context.Context) *http.Response) {
		for r, err := range httpgather.Read[row](get(t.Context()), httpgather.ReadOptions{}) {
			require.NoError(t, err)
			require.Equal(t, 1, r.ID)
			break // which closes the body
		}
		require.ErrorIs(t, <-ended, context.Canceled)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for _, err := range httpgather.Read[row](get(ctx), httpgather.ReadOptions{}) {
			cancel()
			last = err
		}
		require.ErrorIs(t, last, httpgather.ErrTorn)
		require.ErrorIs(t, last, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestAPanicOfTheQueryTearsTheStream(t *testing.T) {
	t.Parallel()
	for _, value := range []any{http.ErrAbortHandler, errBoom} {
		overNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			_ = httpgather.Serve(w, r, func(context.Context) iter.Seq2[row, error] {
				return func(yield func(row, error) bool) {
					_ = yield(row{ID: 1}, nil) && yield(row{ID: 2}, nil)
					panic(value)
				}
			}, httpgather.Options[row]{})
		}, func(t *testing.T, get func(context.Context) *http.Response) {
			_, err := readAll(get(t.Context()))
			require.ErrorIs(t, err, httpgather.ErrTorn)
		})
	}
}

func TestAWholeResponseLeavesItsConnectionForTheNext(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	clients := map[string]bool{}
	overNetwork(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		clients[r.RemoteAddr] = true
		mu.Unlock()
		_ = httpgather.Serve(w, r, numbered(0, 10, nil), httpgather.Options[row]{})
	}, func(t *testing.T, get func(context.Context) *http.Response) {
		clear(clients)
		for range 5 {
			rows, err := readAll(get(t.Context()))
			require.NoError(t, err)
			require.Len(t, rows, 10)
		}
		require.Len(t, clients, 1)
	})
}

// killer accepts connections that break after a number of bytes, each another.
type killer struct {
	net.Listener
	mu  sync.Mutex
	rng *rand.Rand
}

func (k *killer) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return &mortal{Conn: c, left: k.rng.IntN(1500)}, nil
}

type mortal struct {
	net.Conn
	left int
}

func (m *mortal) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p[:min(len(p), m.left)])
	if m.left -= n; m.left == 0 {
		_ = m.Conn.Close()
		return n, errors.New("killed")
	}
	return n, err
}

// The connection dies anywhere, again and again; the client goes on from its last cursor
// and has every row exactly once.
func TestResumingSeesEveryRowOnce(t *testing.T) {
	t.Parallel()
	const total = 400
	for _, accept := range []string{ndjson, array} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			from := 0
			if after := r.URL.Query().Get("after"); after != "" {
				id, _ := strconv.Atoi(after)
				from = id + 1
			}
			_ = httpgather.Serve(w, r, numbered(from, total, nil), httpgather.Options[row]{FlushBytes: 100, Cursor: byID})
		}))
		server.Listener = &killer{Listener: server.Listener, rng: rand.New(rand.NewPCG(1, 2))}
		server.Start()
		defer server.Close()

		var got []row
		cursor, requests, end := "", 0, false
		for !end {
			requests++
			require.Less(t, requests, 1000)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"?after="+cursor, nil)
			require.NoError(t, err)
			r.Header.Set("Accept", accept)
			res, err := server.Client().Do(r)
			if err != nil {
				continue // it died before the header
			}
			for b, err := range httpgather.ReadBatches[row](res, httpgather.ReadOptions{}) {
				if err != nil {
					require.ErrorIs(t, err, httpgather.ErrTorn)
					break
				}
				got, cursor, end = append(got, b.Rows...), b.Cursor, b.End // in one step
			}
		}
		require.Greater(t, requests, 5)
		require.Len(t, got, total)
		for id, r := range got {
			require.Equal(t, id, r.ID)
		}
	}
}
