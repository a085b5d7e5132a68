package admin_test

import (
	"crypto/subtle"
	"database/sql"
	"log"
	"net/http"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/admin"
)

// The page is for operators only, whom the service knows by a password here. The
// same with output is tested in internal/integration, where there is a database.
func ExampleHandler() {
	var box *outbox.Outbox // from outbox.New
	var db *sql.DB         // from sql.Open
	page, err := admin.Handler(box, db)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/outbox/", operatorsOnly("the password", http.StripPrefix("/admin/outbox", page)))
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", mux))
}

func operatorsOnly(password string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, given, _ := r.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(given), []byte(password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="outbox"`)
			http.Error(w, "for operators", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
