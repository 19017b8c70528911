package tokenizer

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkTrain learns 16,000 tokens, the recipe's size, from 2 MB of tales.
func BenchmarkTrain(b *testing.B) {
	text := tales(b, 1<<30)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Train(context.Background(), strings.SplitSeq(text, "\n\n"), TrainOptions{VocabSize: 16000, MinFrequency: 2}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode encodes the tales document by document.
func BenchmarkEncode(b *testing.B) {
	text := tales(b, 1<<30)
	tok, err := Train(context.Background(), strings.SplitSeq(text, "\n\n"), TrainOptions{VocabSize: 16000, MinFrequency: 2})
	if err != nil {
		b.Fatal(err)
	}
	docs := strings.Split(text, "\n\n")
	b.SetBytes(int64(len(text)))
	var ids []int32
	for b.Loop() {
		ids = ids[:0]
		for _, doc := range docs {
			ids = tok.EncodeAppend(ids, doc)
		}
	}
	b.ReportMetric(float64(len(text))/float64(len(ids)), "bytes/token")
}

// BenchmarkEncodePeer is BenchmarkEncode by Hugging Face's library, line by
// line; its start and its reading of the file are not timed.
func BenchmarkEncodePeer(b *testing.B) {
	text := tales(b, 1<<30)
	tok, err := Train(context.Background(), strings.SplitSeq(text, "\n\n"), TrainOptions{VocabSize: 16000, MinFrequency: 2})
	if err != nil {
		b.Fatal(err)
	}
	data, err := tok.JSON()
	if err != nil {
		b.Fatal(err)
	}
	path, texts := writeFile(b, "tokenizer.json", data), writeFile(b, "text.txt", []byte(text))
	var seconds float64
	for b.Loop() {
		s, err := strconv.ParseFloat(string(bytes.TrimSpace(python(b, "time", path, texts))), 64)
		if err != nil {
			b.Fatal(err)
		}
		seconds += s
	}
	b.ReportMetric(float64(len(text))*float64(b.N)/seconds/1e6, "MB/s")
	b.ReportMetric(0, "ns/op")
}
