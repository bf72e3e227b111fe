"""What the tests of the stores share: one PostgreSQL server, and one empty database of MLflow to copy."""

from tests.support.postgres import postgres_server as postgres_server
from tests.support.postgres import postgres_url as postgres_url
from tests.support.tracking import empty_mlflow as empty_mlflow
