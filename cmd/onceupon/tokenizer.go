package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"onceupon/trainer/corpus"
	"onceupon/trainer/fault"
	"onceupon/trainer/tokenizer"
)

func tokenizerCommand() *cli.Command {
	file := func() cli.Flag {
		return &cli.StringFlag{Name: "tokenizer", Usage: "tokenizer.json `FILE`", Required: true}
	}
	return &cli.Command{
		Name:  "tokenizer",
		Usage: "train, encode, decode: byte-level BPE as Hugging Face's",
		Subcommands: []*cli.Command{
			{
				Name: "train", Usage: "learn a vocabulary from text and write tokenizer.json",
				Flags: append(commonFlags(),
					&cli.StringFlag{Name: "corpus", Usage: "text `FILE` or folder", Required: true},
					&cli.IntFlag{Name: "vocab", Value: 4096, Usage: "tokens"},
					&cli.IntFlag{Name: "min-frequency", Value: 2, Usage: "of a pair"},
					&cli.StringFlag{Name: "out", Value: "tokenizer.json", Usage: "`FILE` to write"}),
				Action: tokenizerTrain,
			},
			{Name: "encode", Usage: "text on standard input, ids on standard output", Flags: append(commonFlags(), file()), Action: tokenizerEncode},
			{Name: "decode", Usage: "ids on standard input, text on standard output", Flags: append(commonFlags(), file()), Action: tokenizerDecode},
		},
		Action: func(*cli.Context) error {
			return fault.New(fault.Usage, "tokenizer: give train, encode or decode")
		},
	}
}

func tokenizerTrain(c *cli.Context) error {
	text, err := corpus.Open(c.Context, c.String("corpus"))
	if err != nil {
		return err
	}
	if err := writable(c.String("out")); err != nil { // before minutes of training
		return fault.New(fault.Usage, "train: --out %s: %w: choose another --out", c.String("out"), err)
	}
	r := reporter(c)
	t, err := tokenizer.Train(c.Context, text.Documents(), tokenizer.TrainOptions{VocabSize: c.Int("vocab"), MinFrequency: c.Int("min-frequency"),
		Progress: func(done, total int) { r.Progress("tokenizer", int64(done), int64(total), "tokens", "") }})
	if err != nil {
		return err
	}
	if err := t.Save(c.String("out")); err != nil {
		return err
	}
	r.Say("%s: %d tokens from %d words", c.String("out"), t.VocabSize(), text.Words())
	return r.Emit(map[string]any{"event": "result", "command": "tokenizer", "file": c.String("out"), "tokens": t.VocabSize(), "words": text.Words()})
}

// replaceable says why a path must not be renamed over: as root that would take
// the place of a device.
func replaceable(path string) error {
	switch info, err := os.Stat(path); {
	case err != nil || info.Mode().IsRegular():
		return nil
	case info.IsDir():
		return errors.New("is a folder")
	}
	return errors.New("is not a regular file")
}

// writable says why a file could not be written.
func writable(path string) error {
	if err := replaceable(path); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".onceupon.*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// standardInput is all of it, unless somebody who was to type it gives up.
func standardInput(ctx context.Context) ([]byte, error) {
	type input struct {
		text []byte
		err  error
	}
	read := make(chan input, 1)
	go func() {
		text, err := io.ReadAll(os.Stdin)
		read <- input{text, err}
	}()
	select {
	case in := <-read:
		return in.text, in.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func tokenizerEncode(c *cli.Context) error {
	t, err := tokenizer.Load(c.String("tokenizer"))
	if err != nil {
		return err
	}
	text, err := standardInput(c.Context)
	if err != nil {
		return err
	}
	ids := t.Encode(string(text))
	if c.Bool("json") {
		return reporter(c).Emit(map[string]any{"event": "result", "command": "tokenizer", "ids": ids})
	}
	_, err = fmt.Fprintln(c.App.Writer, strings.Trim(fmt.Sprint(ids), "[]"))
	return err
}

func tokenizerDecode(c *cli.Context) error {
	t, err := tokenizer.Load(c.String("tokenizer"))
	if err != nil {
		return err
	}
	text, err := standardInput(c.Context)
	if err != nil {
		return err
	}
	var ids []int32
	if err := json.Unmarshal([]byte("["+strings.Join(strings.Fields(string(text)), ",")+"]"), &ids); err != nil {
		return fault.New(fault.Usage, "tokenizer decode: ids are integers separated by blanks: %w", err)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= t.VocabSize() {
			return fault.New(fault.Usage, "tokenizer decode: id %d is outside the vocabulary of %d", id, t.VocabSize())
		}
	}
	if c.Bool("json") {
		return reporter(c).Emit(map[string]any{"event": "result", "command": "tokenizer", "text": t.Decode(ids, false)})
	}
	_, err = fmt.Fprint(c.App.Writer, t.Decode(ids, false))
	return err
}
