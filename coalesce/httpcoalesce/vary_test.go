package httpcoalesce_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// varies answers with the value of the fields on which it says that it varies.
func varies(names ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", strings.Join(names, ", "))
		w.WriteHeader(200)
		for _, name := range names {
			_, _ = fmt.Fprint(w, r.Header.Get(name), " ")
		}
	}
}

// Those who wait for a response of another variant go on to their own, together.
func TestVariantsRunOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		var clients []*browser
		for i := range 12 {
			clients = append(clients, s.ask(get("/", fmt.Sprint("Foo: ", i%3))))
		}
		require.Equal(t, 1, s.count())
		s.run(0).play(varies("Foo"))
		require.Equal(t, 3, s.count(), "the other two variants run at once")
		for i := range 3 {
			s.ask(get("/", fmt.Sprint("Foo: ", i)))
		}
		require.Equal(t, 3, s.count(), "known by now")
		s.run(1).play(varies("Foo"))
		s.run(2).play(varies("Foo"))
		s.endAll()
		for i, c := range clients {
			require.Equal(t, fmt.Sprint(i%3, " "), c.text())
		}
		st := s.Stats()
		require.EqualValues(t, 8, st.Diverted)
		require.EqualValues(t, 15, st.Requests)
		require.EqualValues(t, 3, st.Executions)
		s.ask(get("/", "Foo: 1"))
		s.ask(get("/", "Foo: 2"))
		require.Equal(t, 5, s.count(), "no waiting for another variant any more")
		s.endAll()
	})
}

// A resource can vary on one field in one response, and on another in the next.
func TestVaryIsTheUnionOfAllResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/", "Foo: 1", "Bar: 1"))
		b := s.ask(get("/", "Foo: 1", "Bar: 2"))
		s.run(0).play(varies("Foo"))
		s.endAll()
		require.Equal(t, []string{"1 ", "1 "}, []string{a.text(), b.text()})
		c := s.ask(get("/", "Foo: 1", "Bar: 1"))
		d := s.ask(get("/", "Foo: 1", "Bar: 2"))
		require.Equal(t, 2, s.count())
		s.run(1).play(varies("Bar"))
		require.Equal(t, 3, s.count())
		s.run(2).play(varies("Bar"))
		s.endAll()
		require.Equal(t, []string{"1 ", "2 "}, []string{c.text(), d.text()})
		s.ask(get("/", "Foo: 1", "Bar: 1"))
		s.ask(get("/", "Foo: 2", "Bar: 1"))
		s.ask(get("/", "Foo: 1", "Bar: 2"))
		require.Equal(t, 6, s.count())
		s.endAll()
	})
}

// A response that names ever other fields costs a few waits and ends in a run of one's
// own.
func TestADivertedRequestIsServedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		const n = 8
		var clients []*browser
		for i := range n {
			fields := []string{fmt.Sprint("I: ", i)}
			for f := range n {
				same := "same"
				if i >= f+1 {
					same = fmt.Sprint("other", min(i, f+2))
				}
				fields = append(fields, fmt.Sprintf("F%d: %s", f, same))
			}
			clients = append(clients, s.ask(get("/", fields...)))
		}
		for i := 0; i < s.count(); i++ {
			s.run(i).play(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", fmt.Sprintf("F%d, I", i))
				w.WriteHeader(200)
				_, _ = fmt.Fprint(w, r.Header.Get("I"))
			})
		}
		s.endAll()
		for i, c := range clients {
			require.Equal(t, fmt.Sprint(i), c.text())
		}
		require.Equal(t, n, s.count())
	})
}

// So many fields are not remembered; the responses are still never mixed up.
func TestTooManyVaryingFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		for i := range 40 {
			name := fmt.Sprint("F", i)
			x := s.count()
			a := s.ask(get("/", name+": 1"))
			b := s.ask(get("/", name+": 2"))
			for j := x; j < s.count(); j++ {
				s.run(j).play(varies(name))
			}
			c := s.ask(get("/", name+": 1"))
			for j := x; j < s.count(); j++ {
				select {
				case <-s.run(j).over:
				default:
					if c.state() == "waiting" && j == s.count()-1 {
						s.run(j).play(varies(name))
					}
					s.run(j).end()
				}
			}
			require.Equal(t, []string{"1 ", "2 ", "1 "}, []string{a.text(), b.text(), c.text()}, i)
		}
		require.Zero(t, httpcoalesce.Flights(s.Handler))
		require.Equal(t, httpcoalesce.MaxVary, httpcoalesce.Varies(s.Handler))
	})
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		var names []string
		for i := range 17 {
			names = append(names, fmt.Sprint("F", i))
		}
		s.ask(get("/"))
		s.ask(get("/"))
		s.run(0).play(varies(names...))
		require.Equal(t, 2, s.count())
		s.endAll()
	})
}
