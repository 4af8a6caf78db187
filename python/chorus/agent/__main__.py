"""`python -m chorus.agent` is `chorus-agent`."""

import sys

from chorus.agent.cli import main

sys.exit(main())
