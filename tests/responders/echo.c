/*
 * A responder on libfcgi: echoes frames, notes events, and fails when it is told to.
 *
 *   echo SOCKET PROCESSES
 *
 * One request at a time in each process; a process that dies is replaced. The socket is a Unix one.
 */
#include <fcgiapp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *param(const FCGX_Request *request, const char *name)
{
    const char *value = FCGX_GetParam(name, request->envp);
    return value ? value : "";
}

/* One line for each event, in a file that all processes append to. */
static void note(const FCGX_Request *request)
{
    char line[256];
    int length = snprintf(line, sizeof line, "%s %s %s\n", param(request, "LONGWIRE_EVENT"),
                          param(request, "SESSIONID"), param(request, "LONGWIRE_SEQ"));
    int file = open(param(request, "NOTES"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file < 0 || write(file, line, length) != length)
        exit(3);
    close(file);
}

static void answer(FCGX_Request *request)
{
    int length = atoi(param(request, "CONTENT_LENGTH"));
    char *body = malloc(length + 1);
    if (!body || FCGX_GetStr(body, length, request->in) != length)
        exit(4);
    body[length] = 0;
    note(request);
    if (strcmp(param(request, "LONGWIRE_EVENT"), "message") != 0) {
        FCGX_FPrintF(request->out, "\r\n");
    } else if (strcmp(body, "die") == 0) {
        _exit(1);
    } else if (strcmp(body, "fail") == 0) {
        FCGX_FPrintF(request->err, "told to fail\n");
        FCGX_FPrintF(request->out, "Status: 500\r\n\r\nnobody sees this");
    } else {
        FCGX_FPrintF(request->out, "Content-Length: %d\r\n\r\n", length);
        FCGX_PutStr(body, length, request->out);
    }
    free(body);
}

static void serve(int socket)
{
    FCGX_Request request;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    FCGX_InitRequest(&request, socket, 0);
    while (FCGX_Accept_r(&request) == 0) {
        answer(&request);
        FCGX_Finish_r(&request);
    }
    exit(0);
}

int main(int count, char **arguments)
{
    if (count != 3 || FCGX_Init() != 0)
        return 2;
    int socket = FCGX_OpenSocket(arguments[1], 128);
    if (socket < 0)
        return 2;
    for (int missing = atoi(arguments[2]);; missing = 1) {
        for (; missing > 0; missing--)
            if (fork() == 0)
                serve(socket);
        if (wait(NULL) < 0)
            return 1;
    }
}
