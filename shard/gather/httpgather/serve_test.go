package httpgather_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/shard"
	"github.com/evenkeel-go/evenkeel/shard/gather"
	"github.com/evenkeel-go/evenkeel/shard/gather/httpgather"
)

func TestServeWritesTheDocumentedForms(t *testing.T) {
	t.Parallel()
	res, body, err := record("", numbered(7, 9, nil), httpgather.Options[row]{Cursor: byID, Next: func() string { return "N" }})
	require.NoError(t, err)
	require.Equal(t, "{\"ID\":7}\n{\"$cursor\":\"7\"}\n{\"ID\":8}\n{\"$end\":{\"rows\":2,\"next\":\"N\"}}\n", body)
	require.Equal(t, ndjson, res.Header.Get("Content-Type"))
	require.Equal(t, "Accept", res.Header.Get("Vary"))
	require.Equal(t, "no", res.Header.Get("X-Accel-Buffering"))

	res, body, err = record(array, numbered(7, 9, nil), httpgather.Options[row]{})
	require.NoError(t, err)
	require.Equal(t, "[\n{\"ID\":7},\n{\"ID\":8},\n{\"$end\":{\"rows\":2}}\n]", body)
	require.True(t, json.Valid([]byte(body)))
	require.Equal(t, array, res.Header.Get("Content-Type"))

	_, body, err = record(array, numbered(7, 7, nil), httpgather.Options[row]{})
	require.NoError(t, err)
	require.Equal(t, "[\n{\"$end\":{\"rows\":0}}\n]", body)
}

func partialError() error {
	return fmt.Errorf("list: %w", &gather.PartialError{Asked: 2, Missing: []shard.Range{{Start: 0x40 << 56, End: 0x80 << 56}}, Failed: []gather.ShardError{{Shard: &shard.Shard{Name: "40-80"}, Err: errBoom}}})
}

func TestServeReportsAFailureAfterRowsInTheLastRecord(t *testing.T) {
	t.Parallel()
	res, body, err := record("", numbered(1, 3, partialError()), httpgather.Options[row]{Cursor: byID})
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "{\"ID\":1}\n{\"$cursor\":\"1\"}\n{\"ID\":2}\n{\"$error\":{\"message\":\"some shards did not answer\",\"missing\":[\"40-80\"],\"resume\":\"2\"}}\n", body)

	_, body, err = record(array, numbered(1, 2, errBoom), httpgather.Options[row]{})
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, "[\n{\"ID\":1},\n{\"$error\":{\"message\":\"internal error\"}}\n]", body)
}

func TestServeAnswersAFailureBeforeRowsWithAStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		hook   func(error) (int, string)
		status int
		body   string
	}{
		{errBoom, nil, 500, `{"title":"Internal Server Error","status":500,"detail":"internal error"}`},
		{partialError(), nil, 503, `{"title":"Service Unavailable","status":503,"detail":"some shards did not answer","missing":["40-80"]}`},
		{gather.ErrBadCursor, nil, 400, `{"title":"Bad Request","status":400,"detail":"the cursor is not valid"}`},
		{gather.ErrForeignCursor, nil, 400, `{"title":"Bad Request","status":400,"detail":"the cursor is of another query"}`},
		{context.DeadlineExceeded, nil, 503, `{"title":"Service Unavailable","status":503,"detail":"the answer took too long"}`},
		{errBoom, func(err error) (int, string) { return 404, "no such channel" }, 404, `{"title":"Not Found","status":404,"detail":"no such channel"}`},
		{errBoom, func(err error) (int, string) { return 0, "" }, 500, `{"title":"Internal Server Error","status":500,"detail":"internal error"}`},
		{errBoom, func(err error) (int, string) { return 200, "odd" }, 500, `{"title":"Internal Server Error","status":500,"detail":"odd"}`},
	} {
		for _, accept := range []string{ndjson, array} {
			res, body, err := record(accept, numbered(0, 0, c.err), httpgather.Options[row]{Public: c.hook})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.status, res.StatusCode)
			require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
			require.JSONEq(t, c.body, body)

			res.Header.Set("Content-Type", "application/problem+json")
			_, err = readAll(res)
			remote, ok := err.(*httpgather.RemoteError)
			require.True(t, ok)
			require.Equal(t, c.status, remote.Status)
			require.NotEmpty(t, remote.Message)
		}
	}
}

func readAll(res *http.Response) (rows []row, err error) {
	for r, e := range httpgather.Read[row](res, httpgather.ReadOptions{}) {
		if e != nil {
			return rows, e
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func TestServeChoosesWhatTheClientPrefers(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"":                                       ndjson,
		"*/*":                                    ndjson,
		"application/*":                          ndjson,
		"application/json":                       array,
		"APPLICATION/JSON":                       array,
		"application/x-ndjson":                   ndjson,
		"application/ndjson":                     ndjson,
		"application/json, application/x-ndjson": ndjson,
		"application/json, application/x-ndjson;q=0.9":     array,
		"application/json;q=0.2, */*;q=0.1":                array,
		"application/json;q=0, */*":                        ndjson,
		"application/x-ndjson;q=0, */*;q=0.1":              array,
		"text/html, application/json;charset=utf-8;q=0.01": array,
		"text/html":                           "",
		"application/json;q=0":                "",
		"text/*;q=1, */*;q=0":                 "",
		";;;, application/json;q=x, , 7":      ndjson,
		"text/html, application/json;q=1.5":   "",
		"application/*;q=0, application/json": array,
	} {
		res, body, err := record(accept, numbered(0, 1, nil), httpgather.Options[row]{})
		if want == "" {
			require.ErrorIs(t, err, httpgather.ErrNotAcceptable, accept)
			require.Equal(t, http.StatusNotAcceptable, res.StatusCode, accept)
			require.NotContains(t, body, "ID")
			continue
		}
		require.NoError(t, err, accept)
		require.Equal(t, want, res.Header.Get("Content-Type"), accept)
	}
}

func TestServeRefusesRowsThatLookLikeControlRecords(t *testing.T) {
	t.Parallel()
	serve := func(text string) error {
		_, body, err := record("", func(context.Context) iter.Seq2[json.RawMessage, error] {
			return gather.Rows([]json.RawMessage{json.RawMessage(`1`), json.RawMessage(text)})
		}, httpgather.Options[json.RawMessage]{})
		if err == nil {
			rows, err := read[json.RawMessage](ndjson, stringsReader(body))
			require.NoError(t, err)
			require.JSONEq(t, text, string(rows[1]))
		}
		return err
	}
	for _, text := range []string{
		`{"$end":{"rows":1}}`, `{"$end":7}`, `{"$error":null,"a":1}`, `{"$cursor":"x"}`, ` { "$end" : {} }`, `{"\u0024end":{"rows":1}}`, `{"$\u0065nd":{}}`,
	} {
		require.ErrorIs(t, serve(text), httpgather.ErrReservedKey, text)
	}
	for _, text := range []string{
		`{"$oid":"x"}`, `{"a":1,"$end":{"rows":1}}`, `["$end"]`, `"$end"`, `{"$END":1}`, `{"$end ":1}`, `{}`, `[]`, `null`, `{"\\u0024end":1}`, `{"\"$end":1}`, `[{"$end":{"rows":1}}]`,
	} {
		require.NoError(t, serve(text), text)
	}
}

func TestServeEndsWithARowThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	res, body, err := record("", func(context.Context) iter.Seq2[float64, error] {
		return gather.Rows([]float64{1, math.NaN(), 2})
	}, httpgather.Options[float64]{})
	require.ErrorContains(t, err, "row 1: json: unsupported value: NaN")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "1\n{\"$error\":{\"message\":\"internal error\"}}\n", body)
}

func TestServeRefusesOptionsOutOfRange(t *testing.T) {
	t.Parallel()
	for _, o := range []httpgather.Options[row]{{FlushBytes: -1}, {FlushEvery: -1}} {
		res, _, err := record("", func(context.Context) iter.Seq2[row, error] { panic("called") }, o)
		require.ErrorContains(t, err, "httpgather: Options.Flush")
		require.Equal(t, 500, res.StatusCode)
	}
	_, _, err := record[row]("", nil, httpgather.Options[row]{})
	require.ErrorContains(t, err, "query is nil")
}

func TestServeAnswersHeadWithoutTheQuery(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Length", "7")
	r := httptest.NewRequest(http.MethodHead, "/rows", nil)
	require.NoError(t, httpgather.Serve(w, r, func(context.Context) iter.Seq2[row, error] { panic("called") }, httpgather.Options[row]{}))
	require.Equal(t, 200, w.Code)
	require.Equal(t, ndjson, w.Header().Get("Content-Type"))
	require.Empty(t, w.Header().Get("Content-Length"))
}

// sent is what a client has got, and when.
type sent struct {
	*httptest.ResponseRecorder
	flushes []string
	fail    error
	panics  any
	began   time.Time
}

func newSent() *sent { return &sent{ResponseRecorder: httptest.NewRecorder(), began: time.Now()} }

func (s *sent) Write(p []byte) (int, error) {
	if s.panics != nil && s.Body.Len() > 0 {
		panic(s.panics)
	}
	if s.fail != nil && s.Body.Len() > 0 {
		return 0, s.fail
	}
	return s.ResponseRecorder.Write(p)
}

func (s *sent) FlushError() error {
	s.flushes = append(s.flushes, fmt.Sprint(time.Since(s.began), " ", s.Body.String()))
	s.Body.Reset()
	s.Body.WriteString(" ") // something was written
	return nil
}

// slowly yields a number each time the pause has passed.
func slowly(pauses ...time.Duration) func(context.Context) iter.Seq2[int, error] {
	return func(ctx context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i, p := range pauses {
				select {
				case <-time.After(p):
				case <-ctx.Done():
					yield(0, ctx.Err())
					return
				}
				if !yield(i, nil) {
					return
				}
			}
		}
	}
}

// The first row goes out at once, a full buffer at once, and no row waits longer
// than FlushEvery while the query stalls.
func TestServeLeavesNoRowWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSent()
		const ms = time.Millisecond
		err := httpgather.Serve(w, request(""), slowly(10*ms, 10*ms, 30*ms, time.Hour, 0, 0, 0, 10*ms, time.Second), httpgather.Options[int]{FlushBytes: 6})
		require.NoError(t, err)
		require.Equal(t, []string{
			"10ms 0\n",
			"70ms  1\n2\n", // 50 ms after the row 1
			"1h0m0.05s  3\n4\n5\n",
			"1h0m0.1s  6\n7\n", // 50 ms after 3, earlier than those need it
			"1h0m1.06s  8\n{\"$end\":{\"rows\":9}}\n",
		}, w.flushes)
	})
}

func TestServeStopsItsTimerWhenItReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSent()
		require.NoError(t, httpgather.Serve(w, request(""), slowly(0, 0), httpgather.Options[int]{FlushEvery: time.Hour}))
		n := len(w.flushes)
		time.Sleep(2 * time.Hour) // the bubble would fail if a goroutine were left
		require.Len(t, w.flushes, n)
	})
}

func TestServeEndsTheQueryWhenATimedFlushFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*sent, *httpgather.Options[int])
		body   string
	}{
		{func(w *sent, _ *httpgather.Options[int]) { w.fail = errBoom }, " "},
		{func(_ *sent, o *httpgather.Options[int]) {
			o.Cursor = func(i int) (string, error) {
				if i == 0 {
					return "first", nil
				}
				return "", errBoom
			}
		}, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newSent()
			o := httpgather.Options[int]{}
			c.change(w, &o)
			started := time.Now()
			err := httpgather.Serve(w, request(""), slowly(0, 0, time.Hour), o)
			require.ErrorIs(t, err, errBoom)
			require.Equal(t, 50*time.Millisecond, time.Since(started))
			if w.fail != nil {
				require.Len(t, w.flushes, 1, "nothing is written after a failure")
			} else { // rows after the last checkpoint are not sent
				require.Contains(t, w.flushes[1], " {\"$error\":{\"message\":\"internal error\",\"resume\":\"first\"}}\n")
				require.Len(t, w.flushes, 2)
			}
		})
	}
}

func TestServePanicsOnTheHandlersGoroutine(t *testing.T) {
	t.Parallel()
	recovered := func(w http.ResponseWriter, query func(context.Context) iter.Seq2[int, error], o httpgather.Options[int]) (value any) {
		defer func() { value = recover() }()
		err := httpgather.Serve(w, request(""), query, o)
		t.Errorf("returned %v", err)
		return nil
	}
	synctest.Test(t, func(t *testing.T) { // in a timed flush
		w := newSent()
		w.panics = http.ErrAbortHandler
		require.Equal(t, http.ErrAbortHandler, recovered(w, slowly(0, 0, time.Hour), httpgather.Options[int]{}))
		w = newSent()
		require.Equal(t, "cursor", recovered(w, slowly(0, 0, time.Hour), httpgather.Options[int]{Cursor: func(i int) (string, error) {
			if i == 1 {
				panic("cursor")
			}
			return "x", nil
		}}))
	})
	synctest.Test(t, func(t *testing.T) { // in the query, with rows waiting
		w := newSent()
		require.Equal(t, errBoom, recovered(w, func(context.Context) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				_ = yield(1, nil) && yield(2, nil)
				panic(errBoom)
			}
		}, httpgather.Options[int]{}))
		time.Sleep(time.Hour)
		require.Equal(t, []string{"0s 1\n"}, w.flushes, "no end")
	})
}

// A query that stops quietly when its context ends is not whole.
func TestServeTakesTheEndOfTheContextForAFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	w := newSent()
	err := httpgather.Serve(w, request("").WithContext(ctx), func(ctx context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			yield(1, nil)
			cancel(errBoom)
		}
	}, httpgather.Options[int]{})
	require.ErrorIs(t, err, errBoom)
	require.NotContains(t, fmt.Sprint(w.flushes), "$end")
	require.Contains(t, w.flushes[1], "$error")

	// And one that does not look at its context is ended at the next row.
	n := 0
	err = httpgather.Serve(newSent(), request("").WithContext(ctx), func(context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for yield(n, nil) {
				n++
			}
		}
	}, httpgather.Options[int]{})
	require.ErrorIs(t, err, errBoom)
	require.Zero(t, n)
}

func TestServeEndsWhenWritingFails(t *testing.T) {
	t.Parallel()
	w := newSent()
	w.fail = errBoom
	n := 0
	err := httpgather.Serve(w, request(""), func(context.Context) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for yield(n, nil) {
				n++
			}
		}
	}, httpgather.Options[int]{FlushBytes: 100})
	require.ErrorIs(t, err, errBoom)
	require.Less(t, n, 100)
}

// When the last rows have no cursor, they are dropped: a client that had them could not
// tell where to go on.
func TestServeSendsNoRowsThatCannotBeResumedFrom(t *testing.T) {
	t.Parallel()
	_, body, err := record("", numbered(1, 4, errBoom), httpgather.Options[row]{Cursor: func(r row) (string, error) {
		if r.ID > 1 {
			return "", fmt.Errorf("no cursor of %d", r.ID)
		}
		return byID(r)
	}})
	require.ErrorIs(t, err, errBoom)
	require.ErrorContains(t, err, "no cursor of 3")
	require.Equal(t, "{\"ID\":1}\n{\"$cursor\":\"1\"}\n{\"$error\":{\"message\":\"internal error\",\"resume\":\"1\"}}\n", body)

	// Of the first row: nothing was sent, and the status says so.
	res, _, err := record("", numbered(1, 4, nil), httpgather.Options[row]{Cursor: func(row) (string, error) { return "", errBoom }})
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, 500, res.StatusCode)
}

// A cursor that fails once, in a flush by size: no checkpoint may follow, though the
// query lingers and the timer runs.
func TestServeMakesNoCheckpointAfterDroppedRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSent()
		err := httpgather.Serve(w, request(""), func(context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				_ = yield("a", nil) && yield("b", nil) && yield("a long one", nil)
				time.Sleep(time.Second)
			}
		}, httpgather.Options[string]{FlushBytes: 10, Cursor: func(s string) (string, error) {
			if s == "a long one" && time.Since(w.began) < time.Millisecond {
				return "", errBoom
			}
			return s, nil
		}})
		require.ErrorIs(t, err, errBoom)
		require.Equal(t, []string{
			"0s \"a\"\n{\"$cursor\":\"a\"}\n",
			"1s  {\"$error\":{\"message\":\"internal error\",\"resume\":\"a\"}}\n",
		}, w.flushes)
	})
}

func TestServeFlushesNothingTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSent()
		require.NoError(t, httpgather.Serve(w, request(""), slowly(0, 0, 0, time.Hour), httpgather.Options[int]{
			FlushBytes: 4, Cursor: func(i int) (string, error) { return fmt.Sprint(i), nil },
		}))
		require.Equal(t, []string{
			"0s 0\n{\"$cursor\":\"0\"}\n", "0s  1\n2\n{\"$cursor\":\"2\"}\n", "1h0m0s  3\n{\"$end\":{\"rows\":4}}\n",
		}, w.flushes)
	})
}

func TestServeReportsThatTheProblemCouldNotBeWritten(t *testing.T) {
	t.Parallel()
	w := newSent()
	w.Body.WriteString(" ")
	w.fail = io.ErrClosedPipe
	err := httpgather.Serve(w, request(""), numbered(0, 0, errBoom), httpgather.Options[row]{})
	require.ErrorIs(t, err, errBoom)
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// plain is a ResponseWriter that cannot flush.
type plain struct{ w *httptest.ResponseRecorder }

func (p plain) Header() http.Header         { return p.w.Header() }
func (p plain) WriteHeader(status int)      { p.w.WriteHeader(status) }
func (p plain) Write(b []byte) (int, error) { return p.w.Write(b) }

func TestServeDoesWithoutFlush(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	require.NoError(t, httpgather.Serve(plain{w}, request(""), numbered(0, 100, nil), httpgather.Options[row]{}))
	rows, err := read[row](ndjson, w.Body)
	require.NoError(t, err)
	require.Len(t, rows, 100)
}

func TestServeReadsQuotedParameters(t *testing.T) {
	res, _, err := record(`application/json;profile="a,b"`, numbered(0, 2, nil), httpgather.Options[row]{})
	require.NoError(t, err)
	require.Equal(t, "application/json", res.Header.Get("Content-Type"))
}

func TestServeRefusesAnEmptyCursor(t *testing.T) {
	_, body, err := record(ndjson, numbered(0, 3, errBoom), httpgather.Options[row]{Cursor: func(row) (string, error) { return "", nil }})
	_ = err
	require.NotContains(t, body, `{"$cursor":""}`, "an empty cursor is the start: a client that resumes sees all rows twice")
}
