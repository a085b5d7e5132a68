package httpbalance_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

// script is a body that yields chunks and then err for ever.
type script struct {
	ctx    context.Context
	mu     sync.Mutex
	chunks int
	err    error
	closed int
}

var errClosed = errors.New("read after close")

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed > 0:
		return 0, errClosed
	case s.ctx.Err() != nil:
		return 0, errors.New("connection closed") // not the context's own error
	case s.chunks == 0:
		return 0, s.err
	}
	s.chunks--
	return copy(p, "x"), nil
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

type duplex struct{ *script }

func (duplex) Write(p []byte) (int, error) { return len(p), nil }

var errBroken = errors.New("connection reset")

// Whatever the order of reads, ends, closes and the end of the context, the pick ends
// with the first of them that ends the response, once, and as that one says.
func TestAnyInterleavingEndsThePickOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			b, told := newBalancer(t, "http://a")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s := &script{ctx: ctx, chunks: rapid.IntRange(0, 3).Draw(t, "chunks"), err: io.EOF}
			if rapid.Bool().Draw(t, "breaks") {
				s.err = errBroken
			}
			code := rapid.SampledFrom([]int{200, 101, 404, 503}).Draw(t, "status")
			chunks, open := s.chunks, true
			var want error
			end := func(err error) {
				if open && code == 503 {
					err = errStatus
				}
				if open {
					open, want = false, err
				}
			}
			tr := &httpbalance.Transport{Balancer: b, Retries: -1, Base: roundTripper(func(*http.Request) (*http.Response, error) {
				if code == 101 {
					return respond(code, duplex{s}), nil
				}
				return respond(code, s), nil
			})}
			resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
			require.NoError(t, err)
			closed := false
			t.Repeat(map[string]func(*rapid.T){
				"read": func(t *rapid.T) {
					n, err := resp.Body.Read(make([]byte, 10))
					switch {
					case closed:
						require.ErrorIs(t, err, errClosed)
					case ctx.Err() != nil:
						require.Error(t, err)
						end(context.Canceled)
					case chunks > 0:
						require.Equal(t, 1, n)
						chunks--
					case s.err == io.EOF:
						require.Equal(t, io.EOF, err)
						if code != 101 { // the other direction may be in use
							end(nil)
						}
					default:
						require.Equal(t, errBroken, err)
						end(errBroken)
					}
				},
				"write": func(t *rapid.T) {
					if w, ok := resp.Body.(io.Writer); ok {
						n, err := w.Write([]byte("abc"))
						require.NoError(t, err)
						require.Equal(t, 3, n)
					} else {
						require.NotEqual(t, 101, code)
					}
				},
				"close": func(t *rapid.T) {
					require.NoError(t, resp.Body.Close())
					closed = true
					if ctx.Err() != nil {
						end(context.Canceled)
					}
					end(nil)
				},
				"cancel": func(t *rapid.T) {
					cancel()
					synctest.Wait()
					if code != 101 { // the connection is the caller's now
						end(context.Canceled)
					}
				},
				"": func(t *rapid.T) {
					inFlight := int64(0)
					if open {
						inFlight = 1
					}
					got := sum(b)
					require.Equal(t, inFlight, got.InFlight)
					require.EqualValues(t, 1, got.Picks)
					require.Equal(t, want == errBroken || want == errStatus, got.Failures == 1)
					errs := told.all()
					switch {
					case open || want == nil:
						require.Empty(t, errs)
					case want == errStatus:
						require.Len(t, errs, 1)
						require.ErrorAs(t, errs[0], new(*httpbalance.StatusError))
					default:
						require.Equal(t, []error{want}, errs)
					}
				},
			})
		})
	})
}

var errStatus = errors.New("a status error")

func TestConcurrentReadsClosesAndCancelsEndThePickOnce(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	const rounds = 300
	for range rounds {
		ctx, cancel := context.WithCancel(context.Background())
		s := &script{ctx: ctx, chunks: 2, err: io.EOF}
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return respond(200, s), nil
		})}
		resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { _, _ = io.ReadAll(resp.Body) })
			wg.Go(func() { _ = resp.Body.Close() })
		}
		wg.Go(cancel)
		wg.Wait()
	}
	settle(t, b)
	require.EqualValues(t, rounds, sum(b).Picks)
	for _, err := range told.all() {
		if !errors.Is(err, context.Canceled) {
			require.ErrorIs(t, err, errClosed, "a read beside a close may fail first")
		}
	}
}

// closing is a body whose reads end when it is closed, as those of net/http do.
type closing struct{ *io.PipeReader }

func (c closing) Close() error {
	_ = c.PipeReader.Close()
	synctest.Wait() // until whoever reads has seen it
	return nil
}

func TestClosingWhileReadingIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, code := range []int{200, 101} {
			b, told := newBalancer(t, "http://a")
			r, w := io.Pipe()
			tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
				if code == 101 {
					return respond(code, struct {
						closing
						io.Writer
					}{closing{r}, w}), nil
				}
				return respond(code, closing{r}), nil
			})}
			resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			read := make(chan error)
			go func() {
				_, err := resp.Body.Read(make([]byte, 1))
				read <- err
			}()
			synctest.Wait()
			require.NoError(t, resp.Body.Close())
			require.ErrorIs(t, <-read, io.ErrClosedPipe)
			require.Zero(t, sum(b).InFlight)
			require.Empty(t, told.all())
		}
	})
}

// registrar is a context that counts what waits for its end.
type registrar struct {
	context.Context
	waiting int
}

func (r *registrar) Done() <-chan struct{} { return make(chan struct{}) }

// AfterFunc is what [context.AfterFunc] calls if it is there.
func (r *registrar) AfterFunc(func()) func() bool {
	r.waiting++
	return func() bool { r.waiting--; return true }
}

// A context that lives long must not collect the requests that were made with it.
func TestNothingWaitsForTheContextAfterTheBody(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(io.ReadCloser){
		"end":   func(b io.ReadCloser) { _, _ = io.ReadAll(b) },
		"close": func(b io.ReadCloser) { _ = b.Close() },
	} {
		b, _ := newBalancer(t, "http://a")
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return respond(200, text("hello")), nil
		})}
		ctx := &registrar{Context: context.Background()}
		resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
		require.NoError(t, err)
		require.Equal(t, 1, ctx.waiting)
		end(resp.Body)
		require.Zero(t, ctx.waiting, name)
	}
}
