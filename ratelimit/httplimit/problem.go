package httplimit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// problem is an answer with a body of RFC 9457, written once and sent often.
type problem struct {
	status int
	body   []byte
	length string // of body
}

// details are the members of a problem.
type details struct {
	Type     string   `json:"type,omitempty"` // none is about:blank: the status says it all
	Title    string   `json:"title"`
	Status   int      `json:"status"`
	Detail   string   `json:"detail,omitempty"`
	Violated []string `json:"violated-policies,omitempty"`
}

var (
	noKey = newProblem(details{
		Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest,
		Detail: "The request does not say on whose behalf it is made.",
	})
	shedding = newProblem(details{
		Type:   "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
		Title:  "Request cannot be satisfied due to temporary server capacity constraints",
		Status: http.StatusServiceUnavailable,
	})
)

// quotaExceeded is the problem type of the draft, with its title.
func quotaExceeded(policy string) *problem {
	return newProblem(details{
		Type:     "https://iana.org/assignments/http-problem-types#quota-exceeded",
		Title:    "Request cannot be satisfied as assigned quota has been exceeded",
		Status:   http.StatusTooManyRequests,
		Violated: []string{policy},
	})
}

// tooManyInProgress is the same for a limit on what is in progress.
func tooManyInProgress(policy string, limit int) *problem {
	return newProblem(details{
		Type:     "https://iana.org/assignments/http-problem-types#quota-exceeded",
		Title:    "Request cannot be satisfied as assigned quota has been exceeded",
		Status:   http.StatusTooManyRequests,
		Detail:   fmt.Sprintf("There are %d requests in progress already.", limit),
		Violated: []string{policy},
	})
}

func newProblem(d details) *problem {
	body, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	body = append(body, '\n')
	return &problem{status: d.Status, body: body, length: strconv.Itoa(len(body))}
}

// ofTheAnswer are fields that a middleware around this one may have set for the answer of
// the handler. With them the refusal would be stored, or read as if it were compressed.
var ofTheAnswer = [...]string{"Cache-Control", "Content-Encoding", "Etag", "Expires", "Last-Modified"}

func (p *problem) write(w http.ResponseWriter) { p.answer(w, new([2]string)) }

// answer is write with memory for two fields.
func (p *problem) answer(w http.ResponseWriter, values *[2]string) {
	h := w.Header()
	for _, field := range ofTheAnswer {
		delete(h, field)
	}
	values[0], values[1] = "application/problem+json", p.length
	h["Content-Type"], h["Content-Length"] = values[0:1:1], values[1:2:2]
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body) // the client has gone: nothing to do
}
