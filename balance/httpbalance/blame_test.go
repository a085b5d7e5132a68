package httpbalance_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/balance"
	"github.com/evenkeel-go/evenkeel/balance/httpbalance"
)

func TestACallerThatGivesUpIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		context func() (context.Context, context.CancelFunc)
		after   time.Duration
		fails   bool
		told    error
	}{
		"cancel": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(3*time.Second, func() { cancel(errors.New("user went home")) })
			return ctx, func() { cancel(nil) }
		}, 3 * time.Second, false, context.Canceled},
		"deadline": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(context.Background(), 2*time.Second, errors.New("too slow"))
		}, 2 * time.Second, true, context.DeadlineExceeded},
	} {
		for _, where := range []string{"headers", "body", "forgotten body"} {
			synctest.Test(t, func(t *testing.T) {
				b, told := newBalancer(t, "http://a", "http://b")
				tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
					if where == "headers" {
						<-r.Context().Done()
						return nil, context.Cause(r.Context())
					}
					return respond(200, &stuck{r.Context()}), nil
				})}
				ctx, cancel := tc.context()
				defer cancel()
				start := time.Now()
				resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
				switch where {
				case "body":
					require.NoError(t, err)
					require.EqualValues(t, 1, sum(b).InFlight)
					_, err = io.ReadAll(resp.Body)
					require.Error(t, err)
				case "forgotten body":
					require.NoError(t, err)
					time.Sleep(tc.after)
				default:
					require.Error(t, err)
				}
				require.Equal(t, tc.after, time.Since(start), "%s at %s", name, where)
				synctest.Wait()
				got := sum(b)
				require.Equal(t, [2]int64{0, 1}, [2]int64{got.InFlight, got.Picks}, "%s at %s", name, where)
				require.Equal(t, tc.fails, got.Failures == 1, "%s at %s", name, where)
				require.Equal(t, []error{tc.told}, told.all())
			})
		}
	}
}

// stuck is a body from which nothing comes.
type stuck struct{ ctx context.Context }

func (b *stuck) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, context.Cause(b.ctx) }
func (b *stuck) Close() error             { return nil }

// http.Client sets the older Cancel too, for its Timeout.
func TestTheTimeoutOfAClientIsADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, told := newBalancer(t, "http://a")
		client := &http.Client{Timeout: time.Second, Transport: &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}
		_, err := client.Get("http://service/")
		require.Error(t, err)
		require.Equal(t, []error{context.DeadlineExceeded}, told.all())
		require.EqualValues(t, 1, sum(b).Failures)
	})
}

// late is a context whose deadline has passed before its timer has noticed.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now().Add(-1), true }

func TestAClosedCancelChannelAfterTheDeadlineIsTheDeadline(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	gone := make(chan struct{})
	close(gone)
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("request canceled")
	})}
	r := newRequest(t, late{context.Background()}, "GET", "http://service/", nil)
	r.Cancel = gone //lint:ignore SA1019 http.Client sets it
	_, err := tr.RoundTrip(r)
	require.Error(t, err)
	require.Equal(t, []error{context.DeadlineExceeded}, told.all())
}

func TestAClosedCancelChannelIsACancellation(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a", "http://b")
	gone := make(chan struct{})
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		close(gone)
		return nil, errors.New("request canceled")
	})}
	r := newRequest(t, context.Background(), "GET", "http://service/", nil)
	r.Cancel = gone //lint:ignore SA1019 older callers set it
	_, err := tr.RoundTrip(r)
	require.EqualError(t, err, "request canceled")
	require.Equal(t, []error{context.Canceled}, told.all())
}

// A proxy whose client goes away in the middle of an upload must not blame a backend,
// or one bad client would have all of them ejected.
func TestABodyThatCannotBeReadIsNotTheBackendsFault(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(serveKinds))
	t.Cleanup(s.Close)
	b, told := newBalancer(t, s.URL, s.URL+"/other")
	tr := &httpbalance.Transport{Balancer: b}
	errUpload := errors.New("client went away")
	body := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, errUpload }))
	r := newRequest(t, context.Background(), "PUT", "http://service/post", body)
	r.GetBody = func() (io.ReadCloser, error) { return text("whole"), nil }
	_, err := tr.RoundTrip(r)
	require.ErrorIs(t, err, errUpload)
	require.Equal(t, []error{context.Canceled}, told.all())
	require.EqualValues(t, 1, sum(b).Picks, "no retry")
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The base may close the body because of another failure, which a read of a pipe then
// notices too.
func TestABodyThatTheBaseClosedDoesNotExcuseTheBackend(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	errReset := errors.New("reset")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		_ = r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		return nil, errReset
	})}
	pipe, _ := io.Pipe()
	_, err := tr.RoundTrip(newRequest(t, context.Background(), "POST", "http://service/", pipe))
	require.ErrorIs(t, err, errReset)
	require.Equal(t, []error{errReset}, told.all())
}

// latencyOf returns what a balancer has learnt after one request.
func latencyOf(t *testing.T, tr *httpbalance.Transport) time.Duration {
	b, err := balance.New[*url.URL](balance.LeastLatency(balance.LatencyOptions{}), balance.Options{Health: unhealthy})
	require.NoError(t, err)
	set, err := httpbalance.Static("http://a")
	require.NoError(t, err)
	require.NoError(t, b.Update(set))
	tr.Balancer = b
	resp, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
	require.NoError(t, err)
	time.Sleep(time.Minute) // a slow reader
	_, _ = io.ReadAll(resp.Body)
	for _, s := range b.Stats() {
		return s.Latency
	}
	return -1
}

func TestLatencyIsTheTimeToTheHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			time.Sleep(250 * time.Millisecond)
			return respond(200, text("hello")), nil
		})
		require.InDelta(t, 250*time.Millisecond, latencyOf(t, &httpbalance.Transport{Base: base}), float64(time.Millisecond))
		atOnce := roundTripper(func(*http.Request) (*http.Response, error) { return respond(200, text("hello")), nil })
		require.Equal(t, time.Nanosecond, latencyOf(t, &httpbalance.Transport{Base: atOnce}), "known, though the clock did not move")
		stream := func(r *http.Request) bool { return r.URL.Path == "/" }
		require.Zero(t, latencyOf(t, &httpbalance.Transport{Base: base, Stream: stream}))
	})
}

// A backend that fails at once must not be taken for a fast one.
func TestAFailingStatusIsNotLearntAsALowLatency(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, err := balance.New[*url.URL](balance.LeastLatency(balance.LatencyOptions{}), balance.Options{Health: unhealthy})
		require.NoError(t, err)
		set, err := httpbalance.Static("http://a")
		require.NoError(t, err)
		require.NoError(t, b.Update(set))
		code := 200
		tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
			if code == 200 {
				time.Sleep(time.Second)
			}
			return respond(code, http.NoBody), nil
		})}
		for _, code = range []int{200, 500, 500, 500, 500, 500, 500} {
			_, err := tr.RoundTrip(newRequest(t, context.Background(), "GET", "http://service/", nil))
			require.NoError(t, err)
			time.Sleep(10 * time.Second) // in which a new latency would outweigh an old one
		}
		for _, s := range b.Stats() {
			require.InDelta(t, time.Second, s.Latency, float64(100*time.Millisecond))
		}
	})
}

// expiring is a context whose deadline passes when the test says so, and of which nobody
// is told before he asks.
type expiring struct {
	context.Context
	passed atomic.Bool
}

func (*expiring) Done() <-chan struct{}               { return make(chan struct{}) }
func (*expiring) AfterFunc(func()) (stop func() bool) { return func() bool { return true } }

func (e *expiring) Err() error {
	if e.passed.Load() {
		return context.DeadlineExceeded
	}
	return nil
}

// What a close says of the backend does not depend on who hears first of the deadline.
func TestClosingABodyAfterTheDeadlineIsAFailure(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	tr := &httpbalance.Transport{Balancer: b, Base: roundTripper(func(*http.Request) (*http.Response, error) {
		return respond(200, text("never read")), nil
	})}
	ctx := &expiring{Context: context.Background()}
	resp, err := tr.RoundTrip(newRequest(t, ctx, "GET", "http://service/", nil))
	require.NoError(t, err)
	ctx.passed.Store(true)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []error{context.DeadlineExceeded}, told.all())
	require.Zero(t, sum(b).InFlight)
}

func TestAPanicOfStreamIsNotTheBackendsFault(t *testing.T) {
	t.Parallel()
	b, told := newBalancer(t, "http://a")
	tr := &httpbalance.Transport{
		Balancer: b,
		Base: roundTripper(func(*http.Request) (*http.Response, error) {
			return respond(200, http.NoBody), nil
		}),
		Stream: func(*http.Request) bool { panic("boom") },
	}
	upload := &tracked{Reader: strings.NewReader("x")}
	require.PanicsWithValue(t, "boom", func() {
		_, _ = tr.RoundTrip(newRequest(t, context.Background(), "POST", "http://service/", upload))
	})
	require.Zero(t, sum(b).InFlight)
	require.Equal(t, []error{context.Canceled}, told.all())
	require.True(t, upload.closed.Load())
}
