"""Django under OpenTelemetry's instrumentation."""

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from opentelemetry.instrumentation.django import DjangoInstrumentor

import micromegas as mm

mm.init()
mm.install_otel()


def read(request: HttpRequest, item: int) -> HttpResponse:
    mm.log.info("looking up %d", item)
    return HttpResponse(str(item))


def broken(request: HttpRequest) -> HttpResponse:
    raise LookupError("no such shelf")


urlpatterns = [path("items/<int:item>", read), path("broken", broken)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="test", MIDDLEWARE=[])
DjangoInstrumentor().instrument()
django.setup()

client = Client(raise_request_exception=False)
assert client.get("/items/7", headers={"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}).content == b"7"
assert client.get("/broken").status_code == 500
