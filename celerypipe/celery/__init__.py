"""Celery, as celerypipe uses it: the application, and what stands in for parts of Celery's and kombu's own."""

from celerypipe.celery.application import app as app
