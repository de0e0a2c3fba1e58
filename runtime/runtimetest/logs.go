package runtimetest

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/drone/drone-go/drone"
)

// maxLive is how many lines of a live log the real server keeps (livelog/stream.go).
const maxLive = 5000

// Log is what the server got of a step's log.
type Log struct {
	// Live are the lines that were shown while the step ran, the last 5000 of them.
	Live []*drone.Line

	// Open says that the live log still takes lines.
	Open bool

	// Stored is the log that was uploaded; nil if none was.
	Stored []*drone.Line
}

// Text joins the messages of lines.
func Text(lines []*drone.Line) string {
	var text []byte
	for _, line := range lines {
		text = append(text, line.Message...)
	}
	return string(text)
}

// Logs returns what the server got of a step's log.
func (s *Server) Logs(step int64) Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := Log{Stored: s.state.logs[step]}
	if live := s.state.history[step]; live != nil {
		log.Live = slices.Clone(live.Live)
	}
	_, log.Open = s.state.streams[step]
	return log
}

// Card returns the card that was uploaded for a step.
func (s *Server) Card(step int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.cards[step]
}

// serveBatch answers POST /step/{id}/logs/batch. The server looks for the live log once a line, so an empty batch is
// taken where there is none. Lines are added as they come: a batch that is sent twice shows twice.
func (s *Server) serveBatch(r *http.Request, body []byte) (any, error) {
	var lines []*drone.Line
	if err := json.Unmarshal(body, &lines); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.state.streams[pathID(r)]
	if log == nil && len(lines) > 0 {
		return nil, errNoStream
	}
	if log != nil {
		log.Live = append(log.Live, lines...)
		log.Live = log.Live[max(0, len(log.Live)-maxLive):]
	}
	s.touch()
	return nil, nil
}

// serveUpload answers POST /step/{id}/logs/upload. It does not look at the step's version, so a log is taken after a
// cancel too, nor, unlike a real one, for the step. The real server stores any bytes; here they must be the lines
// that its pages expect.
func (s *Server) serveUpload(r *http.Request, body []byte) (any, error) {
	var lines []*drone.Line
	if err := json.Unmarshal(body, &lines); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.state.logs[pathID(r)]; ok {
		return nil, errors.New("UNIQUE constraint failed: logs.log_id")
	}
	s.state.logs[pathID(r)] = append([]*drone.Line{}, lines...)
	s.touch()
	return nil, nil
}

// serveCard answers POST /step/{id}/card, which servers up to 2.0.4 do not know.
func (s *Server) serveCard(r *http.Request, body []byte) (any, error) {
	if !s.cards {
		return nil, errNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.cards[pathID(r)] = body
	s.touch()
	return nil, nil
}
