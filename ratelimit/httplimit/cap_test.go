package httplimit_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

// capped sends a query through the middleware and returns the query that arrives, or
// the detail of the refusal.
func capped(t *testing.T, o httplimit.CapOptions, query string) (got, detail string) {
	wrap, err := httplimit.Cap(o)
	require.NoError(t, err)
	got = "none"
	h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.URL.RawQuery
		require.NoError(t, r.ParseForm())
		require.Equal(t, r.URL.Query(), r.Form)
		require.Equal(t, "/items", r.URL.Path)
	}))
	r := httptest.NewRequest("GET", "/items", nil)
	r.URL.RawQuery = query
	_ = r.ParseForm() // by somebody before
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, query, r.URL.RawQuery, "the caller's request is as it was")
	if w.Code == 200 {
		return got, ""
	}
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.Equal(t, "none", got)
	var problem struct {
		Detail string
		Status int
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
	require.Equal(t, 400, problem.Status)
	return "", problem.Detail
}

func TestPagesAreCapped(t *testing.T) {
	refuse := httplimit.CapOptions{Max: 100}
	clamp := httplimit.CapOptions{Max: 100, Clamp: true, Default: 20}
	rows := httplimit.CapOptions{Max: 5, Params: []string{"rows"}}
	for _, tc := range []struct {
		o           httplimit.CapOptions
		query       string
		got, detail string
	}{
		{refuse, "", "", ""},
		{refuse, "limit=100&q=a%20b", "limit=100&q=a%20b", ""}, // untouched
		{refuse, "first=0", "first=0", ""},
		{refuse, "rows=1000", "rows=1000", ""},
		{refuse, "limit=101", "", "limit is 101, expected at most 100."},
		{refuse, "q=x&last=1000", "", "last is 1000, expected at most 100."},
		{refuse, "limit=1&limit=101", "", "limit is 101, expected at most 100."},
		{refuse, "limi%74=101", "", "limit is 101, expected at most 100."},
		{refuse, "limit=99999999999999999999999", "", "limit is 99999999999999999999, expected at most 100."},
		{refuse, "limit=-1", "", `limit is "-1", expected a number from 0 to 100.`},
		{refuse, "limit=", "", `limit is "", expected a number from 0 to 100.`},
		{refuse, "limit=+5", "", `limit is " 5", expected a number from 0 to 100.`},
		{refuse, "limit=1e3", "", `limit is "1e3", expected a number from 0 to 100.`},
		{refuse, "limit=%22%3Cscript%3E", "", `limit is "\"<script>", expected a number from 0 to 100.`},
		{refuse, "limit=10;limit=1000", "", "The query cannot be parsed."},
		{refuse, "a=%zz", "", "The query cannot be parsed."},
		{clamp, "", "limit=20", ""},
		{clamp, "q=1", "limit=20&q=1", ""},
		{clamp, "first=7", "first=7", ""},
		{clamp, "first=700&q=b", "first=100&q=b", ""},
		{clamp, "limit=99999999999999999999999", "limit=100", ""},
		{clamp, "limit=x", "", `limit is "x", expected a number from 0 to 100.`},
		{rows, "limit=1000&rows=5", "limit=1000&rows=5", ""},
		{rows, "rows=6", "", "rows is 6, expected at most 5."},
	} {
		got, detail := capped(t, tc.o, tc.query)
		require.Equal(t, tc.detail, detail, tc.query)
		require.Equal(t, tc.got, got, tc.query)
	}
	for _, o := range []httplimit.CapOptions{{}, {Max: -1}, {Max: 1, Default: 2}, {Max: 1, Default: -1}} {
		_, err := httplimit.Cap(o)
		require.ErrorContains(t, err, "httplimit: CapOptions.")
	}
}

func TestABudgetEndsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrap, err := httplimit.Budget(time.Second)
		require.NoError(t, err)
		start := time.Now()
		var ctx context.Context
		h := wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			ctx = r.Context()
			<-ctx.Done()
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		}))
		call(h, "GET", "a", 1)
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, context.Cause(ctx), httplimit.ErrBudget)

		h = wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ctx = r.Context() }))
		call(h, "GET", "a", 1)
		require.ErrorIs(t, ctx.Err(), context.Canceled, "it ends with the handler")

		r := httptest.NewRequest("GET", "/", nil)
		earlier, cancel := context.WithTimeout(r.Context(), time.Millisecond)
		defer cancel()
		h.ServeHTTP(httptest.NewRecorder(), r.WithContext(earlier))
		deadline, _ := ctx.Deadline()
		require.Equal(t, time.Millisecond, time.Until(deadline))
	})
	for _, d := range []time.Duration{0, -1} {
		_, err := httplimit.Budget(d)
		require.ErrorContains(t, err, "expected more than 0")
	}
}
