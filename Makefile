# make help lists the targets. The Python to make .venv with: make PYTHON=python3.12 demo
PYTHON ?= python3
MODEL_PORT ?= 9000
WEB_PORT ?= 8000
VENV := .venv/bin
# Scripts run in their own folder, as in the READMEs.
RUN = cd $(1) && ../$(VENV)/python

.DEFAULT_GOAL := help
.PHONY: help demo test setup setup-dev train tokenizer base sft agent evaluate serve app ask gpu shakespeare reports lint clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: setup  ## train what is not trained yet, serve, print http://localhost:8000
	@$(VENV)/python scripts/demo.py --model-port $(MODEL_PORT) --web-port $(WEB_PORT)

test: setup-dev  ## run all tests (trains the tiny preset once, if it is not trained yet)
	@$(VENV)/python -m pytest

setup:  ## make .venv and install
	@$(PYTHON) scripts/setup.py

setup-dev:  ## the same with what the tests need
	@$(PYTHON) scripts/setup.py --dev

train: setup  ## L3 to L5: the three stages, without serving
	@$(VENV)/python scripts/demo.py --train-only

tokenizer: setup  ## L2: how the vocabulary cuts texts, and one forward pass step by step
	@$(call RUN,04_transformer) bpe.py && ../$(VENV)/python inference.py "What is 1234 plus 5678?"

base: setup  ## L3: pretraining
	@$(call RUN,00_train) prepare.py && ../$(VENV)/python train.py && ../$(VENV)/python sample.py "ROMEO:"

sft: setup  ## L4: instruction tuning (after base)
	@$(call RUN,00b_sft) train.py

agent: setup  ## L5: agent tuning (after sft)
	@$(call RUN,00c_agent_sft) build_data.py && ../$(VENV)/python train.py

evaluate: setup  ## L5: held-out questions through the whole loop
	@$(call RUN,00c_agent_sft) evaluate.py

serve: setup  ## L6: the model server, port 9000
	@$(VENV)/python 03_model/server.py --port $(MODEL_PORT)

app: setup  ## L7: the web app, port 8000 (needs serve)
	@AGENT_MODE=1 MODEL_URL=http://127.0.0.1:$(MODEL_PORT) $(VENV)/uvicorn 01_app.backend.main:app --port $(WEB_PORT)

ask: setup  ## L8: the agent on the command line (needs serve)
	@MODEL_URL=http://127.0.0.1:$(MODEL_PORT) $(VENV)/python 02_agent/agent.py

gpu: setup  ## L1: build, check and time the kernels (needs an NVIDIA GPU and nvcc)
	@$(call RUN,05_gpu) benchmark.py

shakespeare: setup  ## the published experiment: Tiny Shakespeare in GPT-2's vocabulary
	@$(call RUN,00_train) prepare.py --preset shakespeare && ../$(VENV)/python train.py --preset shakespeare

reports: setup  ## put the measured results into the READMEs
	@$(VENV)/python reports/render.py

lint: setup-dev  ## ruff and pyright
	@$(VENV)/ruff check . && $(VENV)/pyright

clean:  ## remove everything that was trained (not .venv)
	rm -rf 00_train/out 00b_sft/out 00c_agent_sft/out
