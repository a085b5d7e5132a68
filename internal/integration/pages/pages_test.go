package pages_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPages: every reader gets the page that it asked for, whoever else asked for what
// at that time, and no page costs more than one query.
func TestPages(t *testing.T) {
	const requests = 20_000
	s := newSite(t)
	h := collapsed(t, s)
	err := load(t.Context(), serve(t, h), readers, requests, func(page, status int, body []byte) error {
		want, err := json.Marshal(summary{title(page), extract(page)})
		if err != nil {
			return err
		}
		if status != http.StatusOK || !bytes.Equal(want, body) {
			return fmt.Errorf("page %d: status %d, body %q", page, status, body)
		}
		return nil
	})
	require.NoError(t, err)
	st := h.Stats()
	t.Logf("%+v", st)
	require.EqualValues(t, requests, st.Requests)
	require.EqualValues(t, s.queries.Load(), st.Executions)
	require.Equal(t, st.Requests, st.Executions+st.Joined)
	require.Positive(t, st.Joined)
	require.Zero(t, st.Passed+st.Released+st.Diverted+st.Slow+st.Aborted+st.Abandoned)
	require.Zero(t, st.InFlight)
}

// BenchmarkPages reads summaries over real connections, and reports requests and
// queries a minute. The floor answers from memory: what is above it is the database
// and the collapsing.
//
//	go test -run '^$' -bench Pages -benchtime 3s ./pages
const readers = 256

func BenchmarkPages(b *testing.B) {
	for _, impl := range []string{"floor", "direct", "collapsed"} {
		b.Run("impl="+impl, func(b *testing.B) {
			s := newSite(b)
			handler := map[string]func() http.Handler{
				"floor":     func() http.Handler { return http.HandlerFunc(inMemory) },
				"direct":    func() http.Handler { return s },
				"collapsed": func() http.Handler { return collapsed(b, s) },
			}[impl]()
			addr := serve(b, handler)
			b.ReportAllocs()
			b.ResetTimer()
			err := load(b.Context(), addr, readers, b.N, func(page, status int, body []byte) error {
				if status != http.StatusOK {
					return fmt.Errorf("page %d: status %d, body %q", page, status, body)
				}
				return nil
			})
			require.NoError(b, err)
			minutes := b.Elapsed().Minutes()
			b.ReportMetric(float64(b.N)/minutes, "requests/min")
			b.ReportMetric(float64(s.queries.Load())/minutes, "queries/min")
		})
	}
}

var someBody = bytes.Repeat([]byte("x"), 600)

func inMemory(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "600")
	_, _ = w.Write(someBody)
}
